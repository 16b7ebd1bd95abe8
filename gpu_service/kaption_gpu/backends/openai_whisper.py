"""The second runtime: openai-whisper on PyTorch, with the weights of the CTranslate2 file.

Items are decoded one by one: PyTorch's sums depend on a batch's shape, and a final's text must not (promise 4).
Its key-value cache hangs on the model's modules, so one batch runs at a time.
"""

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
import torch
from faster_whisper.feature_extractor import FeatureExtractor
from whisper.decoding import DecodingOptions, DecodingTask
from whisper.model import ModelDimensions, Whisper, disable_sdpa
from whisper.timing import dtw, median_filter

from kaption.adapters.settings import Settings
from kaption_gpu.backends.ct2_file import layers, read_arrays, whisper_state
from kaption_gpu.backends.runtime import TIME_STEP, Hypothesis, Mel, TokenTimes
from kaption_gpu.backends.whisper import WhisperBackend
from kaption_gpu.weights import find_weights

_FILTER_WIDTH = 7
_SPECIAL = ("startoftranscript", "endoftext", "notimestamps")


class _Task(DecodingTask):  # type: ignore[misc] # the package has no types
    """Whisper's decoding after a given prompt, of features that need not be those of 30 s."""

    def __init__(
        self, model: Whisper, prompt: Sequence[int], beam_size: int, max_new: int, suppressed: Sequence[int] = (-1,)
    ) -> None:
        self._prompt = tuple(prompt)
        # The language only chooses special tokens, which the prompt has already.
        options = DecodingOptions(
            language="en",
            sample_len=max_new,
            beam_size=beam_size if beam_size > 1 else None,
            suppress_tokens=suppressed,
            fp16=False,
        )
        super().__init__(model, options)

    def _get_initial_tokens(self) -> tuple[int, ...]:
        return self._prompt

    def _get_audio_features(self, mel: torch.Tensor) -> torch.Tensor:
        return mel


class TorchRuntime:
    """A ``Runtime`` on PyTorch, float32; features are tensors, shape (batch, frames / 2, width)."""

    def __init__(self, model: Whisper, tokenizer: tokenizers.Tokenizer) -> None:
        self._model = model
        self._lock = threading.Lock()
        special = {name: tokenizer.token_to_id(f"<|{name}|>") for name in _SPECIAL}
        self._start, self._end, self._no_timestamps = (int(special[name] or 0) for name in _SPECIAL)

    @property
    def multilingual(self) -> bool:
        """Whether the weights know more than English."""
        return bool(self._model.is_multilingual)

    def encode(self, mel: Mel) -> torch.Tensor:
        """Encoder output of ``mel``; unlike Whisper's own forward it takes the first positions for a shorter one."""
        return torch.cat([self._encode(torch.from_numpy(item)[None].to(self._model.device)) for item in mel])

    def _encode(self, mel: torch.Tensor) -> torch.Tensor:
        encoder = self._model.encoder
        x = torch.nn.functional.gelu(encoder.conv1(mel))
        x = torch.nn.functional.gelu(encoder.conv2(x)).permute(0, 2, 1)
        x = x + encoder.positional_embedding[: x.shape[1]]
        for block in encoder.blocks:
            x = block(x)
        normed: torch.Tensor = encoder.ln_post(x)
        return normed

    def select(self, features: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """The items ``rows``."""
        return features[list(rows)]

    def detect(self, features: torch.Tensor) -> list[str]:
        """The likeliest language of each item."""
        tokenizer = _Task(self._model, [self._start], 1, 1).tokenizer
        tokens = list(tokenizer.all_language_tokens)
        found = []
        for item in features:
            logits = self._model.logits(torch.tensor([[self._start]], device=item.device), item[None])[0, 0]
            found.append(str(tokenizer.all_language_codes[int(logits[tokens].argmax())]))
        return found

    def generate(
        self,
        features: torch.Tensor,
        prompts: Sequence[Sequence[int]],
        *,
        beam_size: int,
        max_new: int,
        endless: bool = False,
    ) -> list[Hypothesis]:
        """Decode each item."""
        found = []
        suppressed = (-1, self._end) if endless else (-1,)
        for item, prompt in zip(features, prompts, strict=True):
            with self._lock:
                result = _Task(self._model, prompt, beam_size, max_new, suppressed).run(item[None])[0]
            found.append(Hypothesis(tuple(result.tokens), float(result.avg_logprob), float(result.no_speech_prob)))
        return found

    def align(
        self, features: torch.Tensor, start: Sequence[int], texts: Sequence[Sequence[int]], frames: Sequence[int]
    ) -> list[TokenTimes | None]:
        """When each token is said, as ``whisper.timing.find_alignment`` does it, of features already encoded."""
        return [
            self._align(item[None], start, text, length)
            for item, text, length in zip(features, texts, frames, strict=True)
        ]

    def _align(
        self, features: torch.Tensor, start: Sequence[int], text: Sequence[int], frames: int
    ) -> TokenTimes | None:
        tokens = torch.tensor([[*start, self._no_timestamps, *text, self._end]], device=features.device)
        attention: list[torch.Tensor] = []
        with self._lock, disable_sdpa():
            hooks = [
                block.cross_attn.register_forward_hook(lambda _module, _ins, outs: attention.append(outs[-1][0]))
                for block in self._model.decoder.blocks
            ]
            try:
                logits = self._model.logits(tokens, features)[0]
            finally:
                for hook in hooks:
                    hook.remove()
        spoken = logits[len(start) : len(start) + len(text), : self._end].softmax(dim=-1)
        probabilities = spoken[torch.arange(len(text)), torch.tensor(text)].double().cpu().numpy()
        heads = self._model.alignment_heads.indices().T
        weights = torch.stack([attention[layer][head] for layer, head in heads])[:, :, : frames // 2].softmax(dim=-1)
        std, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
        matrix = median_filter((weights - mean) / std, _FILTER_WIDTH).mean(dim=0)[len(start) : -1]
        rows, columns = dtw(-matrix)
        starts = np.asarray(columns)[np.diff(rows, prepend=-1).astype(bool)] * TIME_STEP
        return TokenTimes(starts, probabilities) if len(starts) == len(text) + 1 else None


def _model(folder: Path) -> Whisper:
    """openai-whisper's model with the weights of ``folder``."""
    arrays = read_arrays(folder / "model.bin")
    state = whisper_state(arrays)
    positions, width = state["encoder.positional_embedding"].shape
    vocabulary, _ = state["decoder.token_embedding.weight"].shape
    dims = ModelDimensions(
        n_mels=state["encoder.conv1.weight"].shape[1],
        n_audio_ctx=positions,
        n_audio_state=width,
        n_audio_head=int(arrays["encoder/num_heads"]),
        n_audio_layer=layers(arrays, "encoder"),
        n_vocab=vocabulary,
        n_text_ctx=state["decoder.positional_embedding"].shape[0],
        n_text_state=width,
        n_text_head=int(arrays["decoder/num_heads"]),
        n_text_layer=layers(arrays, "decoder"),
    )
    model = Whisper(dims)
    model.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in state.items()})
    heads = json.loads((folder / "config.json").read_text())["alignment_heads"]
    mask = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool)
    mask[tuple(zip(*heads, strict=True))] = True
    model.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)
    return model.eval().requires_grad_(requires_grad=False)


def load(settings: Settings) -> WhisperBackend[torch.Tensor]:
    """Load ``settings.model`` on the machine's accelerator or ``settings.executors`` threads.

    Raises:
        WeightsError: There are no weights for the alias.
        WeightFileError: They are in a layout that is not known.
    """
    weights = find_weights(settings)
    torch.set_num_threads(settings.executors)
    model = _model(weights.folder).to("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = tokenizers.Tokenizer.from_file(str(weights.folder / "tokenizer.json"))
    runtime = TorchRuntime(model, tokenizer)
    extractor = FeatureExtractor(feature_size=model.dims.n_mels)
    return WhisperBackend(runtime, tokenizer, extractor, weights, "openai-whisper")
