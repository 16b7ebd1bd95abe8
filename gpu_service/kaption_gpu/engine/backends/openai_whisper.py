"""Runs openai-whisper on PyTorch, on a GPU or the processor, with the weights of the CTranslate2 file.

PyTorch's sums depend on a batch's shape, and other windows must not change a final's text (promise 4). So all batches of a
runtime have one shape, ``rows`` items; copies fill a smaller batch. On a GPU ``rows`` is the pool's batch size, since
another row costs almost nothing there; on the processor it is 1.

The package keeps its key-value cache in the model's modules and its kind of attention per process: one thread at a time.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers
import torch
from faster_whisper.feature_extractor import FeatureExtractor
from whisper.decoding import ApplyTimestampRules, DecodingOptions, DecodingTask, LogitFilter
from whisper.model import ModelDimensions, Whisper, disable_sdpa
from whisper.timing import dtw, median_filter

from kaption.adapters.models.weights import find_weights
from kaption.adapters.settings import Settings
from kaption_gpu.engine.backends.ct2_file import layers, read_arrays, whisper_state
from kaption_gpu.engine.backends.runtime import TIME_STEP, Hypothesis, Mel, TokenTimes
from kaption_gpu.engine.backends.whisper import WhisperBackend

_FILTER_WIDTH = 7
#: Texts to align are padded to a multiple of this number of tokens, so that few shapes occur; the text does not attend to it.
_TEXT_STEP = 16
_SPECIAL = ("startoftranscript", "endoftext", "notimestamps")


class _TimestampRules(LogitFilter):  # type: ignore[misc] # the package has no types
    """``whisper.decoding.ApplyTimestampRules`` for all rows at once: row by row, a GPU would mostly wait for Python."""

    def __init__(self, rules: ApplyTimestampRules) -> None:
        self._rules = rules

    def apply(self, logits: torch.Tensor, tokens: torch.Tensor) -> None:
        """Forbid in place the tokens that break the timestamp rules; shapes (rows, vocabulary), (rows, length)."""
        begin, end = self._rules.tokenizer.timestamp_begin, self._rules.tokenizer.eot
        logits[:, self._rules.tokenizer.no_timestamps] = -torch.inf
        said = tokens[:, self._rules.sample_begin :]
        if said.shape[1] == 0:
            logits[:, :begin] = -torch.inf
            logits[:, begin + self._rules.max_initial_timestamp_index + 1 :] = -torch.inf
        else:
            last = said[:, -1] >= begin
            before = said[:, -2] >= begin if said.shape[1] > 1 else torch.ones_like(last)
            column = torch.arange(logits.shape[1], device=logits.device)
            # Timestamps come in pairs, except the first: text follows two of them, another one or the end follows one.
            logits.masked_fill_((last & before)[:, None] & (column >= begin), -torch.inf)
            logits.masked_fill_((last & ~before)[:, None] & (column < end), -torch.inf)
            # They never decrease, and a segment is not empty; the second of a pair may equal the first.
            least = said.amax(dim=1) + (~(last & ~before)).long()
            logits.masked_fill_((column >= begin) & (column < least[:, None]), -torch.inf)
        likely = logits.log_softmax(dim=-1)
        timed = likely[:, begin:].logsumexp(dim=-1) > likely[:, :begin].amax(dim=-1)
        logits[:, :begin].masked_fill_(timed[:, None], -torch.inf)


class _Task(DecodingTask):  # type: ignore[misc] # the package has no types
    """Whisper's decoding with one prompt per item, all of one length, and features that may be shorter than 30 s."""

    logit_filters: list[LogitFilter]

    def __init__(
        self,
        model: Whisper,
        prompts: Sequence[Sequence[int]],
        beam_size: int,
        max_new: int,
        suppressed: Sequence[int] = (-1,),
    ) -> None:
        self._prompts = prompts
        # The language only chooses special tokens, which the prompts already have.
        options = DecodingOptions(
            language="en",
            sample_len=max_new,
            beam_size=beam_size if beam_size > 1 else None,
            suppress_tokens=suppressed,
            fp16=False,
        )
        super().__init__(model, options)
        self.logit_filters = [
            _TimestampRules(each) if isinstance(each, ApplyTimestampRules) else each for each in self.logit_filters
        ]

    def _get_initial_tokens(self) -> tuple[int, ...]:
        return tuple(self._prompts[0])

    def _get_audio_features(self, mel: torch.Tensor) -> torch.Tensor:
        return mel

    def _detect_language(self, audio_features: torch.Tensor, tokens: torch.Tensor) -> tuple[list[str], None]:
        """Write each item's own prompt into ``tokens``, since a task may do that here; detect nothing."""
        tokens[:] = torch.tensor(self._prompts)
        return ["en"] * len(audio_features), None


class TorchRuntime:
    """A ``Runtime`` on PyTorch, float32; features are tensors, shape (batch, frames / 2, width)."""

    def __init__(self, model: Whisper, tokenizer: tokenizers.Tokenizer, rows: int) -> None:
        """``rows``: the items of each computed batch."""
        self._model = model
        self._rows = rows
        self._lock = threading.Lock()
        special = {name: tokenizer.token_to_id(f"<|{name}|>") for name in _SPECIAL}
        self._start, self._end, self._no_timestamps = (int(special[name] or 0) for name in _SPECIAL)

    @property
    def multilingual(self) -> bool:
        """Whether the weights know more languages than English."""
        return bool(self._model.is_multilingual)

    @property
    def precision(self) -> str:
        """float32 on every device."""
        return "f32"

    def encode(self, mel: Mel) -> torch.Tensor:
        """Encode ``mel``; unlike Whisper's own forward, a shorter window uses the first positions."""
        found = []
        for rows, count in self._batches(range(len(mel)), self._rows):
            with self._lock:
                found.append(self._encode(torch.from_numpy(mel[rows]).to(self._model.device))[:count])
        return torch.cat(found)

    def _encode(self, mel: torch.Tensor) -> torch.Tensor:
        encoder = self._model.encoder
        x = torch.nn.functional.gelu(encoder.conv1(mel))
        x = torch.nn.functional.gelu(encoder.conv2(x)).permute(0, 2, 1)
        x = x + encoder.positional_embedding[: x.shape[1]]
        for block in encoder.blocks:
            x = block(x)
        normed: torch.Tensor = encoder.ln_post(x)
        return normed

    @staticmethod
    def _batches(rows: Sequence[int], size: int) -> Iterator[tuple[list[int], int]]:
        """Split ``rows`` into batches of ``size``, the last one padded with its first row; and the real rows of each."""
        for begin in range(0, len(rows), size):
            batch = list(rows[begin : begin + size])
            yield batch + batch[:1] * (size - len(batch)), len(batch)

    def select(self, features: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Return the items ``rows``."""
        return features[list(rows)]

    def detect(self, features: torch.Tensor) -> list[str]:
        """Return the likeliest language of each item."""
        tokenizer = _Task(self._model, [[self._start]], 1, 1).tokenizer
        tokens = list(tokenizer.all_language_tokens)
        found = []
        for item in features:
            with self._lock:
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
        """Decode each item; with a beam one by one, since the package then takes no batch."""
        found: list[Hypothesis] = []
        suppressed = (-1, self._end) if endless else (-1,)
        for rows, count in self._batches(range(len(prompts)), self._rows if beam_size == 1 else 1):
            task = _Task(self._model, [prompts[row] for row in rows], beam_size, max_new, suppressed)
            with self._lock:
                results = task.run(features[rows])[:count]
            found += [Hypothesis(tuple(r.tokens), float(r.avg_logprob), float(r.no_speech_prob)) for r in results]
        return found

    def align(
        self, features: torch.Tensor, start: Sequence[int], texts: Sequence[Sequence[int]], frames: Sequence[int]
    ) -> list[TokenTimes | None]:
        """Return when each token is said, like ``whisper.timing.find_alignment``, but for encoded features."""
        found: dict[int, TokenTimes | None] = {}
        steps = [-(-len(text) // _TEXT_STEP) for text in texts]
        for step in sorted(set(steps)):
            alike = [row for row, other in enumerate(steps) if other == step]
            for rows, count in self._batches(alike, self._rows):
                attention, probabilities = self._attend(features[rows], start, [texts[row] for row in rows], step)
                for place, row in enumerate(rows[:count]):
                    length = len(texts[row])
                    weights = attention[:, place, : len(start) + length + 2, : frames[row] // 2]
                    found[row] = _times(weights, len(start), probabilities[place, :length])
        return [found[row] for row in range(len(texts))]

    def _attend(
        self, features: torch.Tensor, start: Sequence[int], texts: Sequence[Sequence[int]], step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the alignment heads' attention before softmax, shape (heads, rows, tokens, positions), and the text tokens'
        probabilities, shape (rows, tokens), in the machine's memory.
        """
        room = min(step * _TEXT_STEP, self._model.dims.n_text_ctx - len(start) - 2)
        filled = [[*start, self._no_timestamps, *text, *[self._end] * (room + 1 - len(text))] for text in texts]
        tokens = torch.tensor(filled, device=features.device)
        attention: list[torch.Tensor] = []
        with self._lock, disable_sdpa():
            hooks = [
                block.cross_attn.register_forward_hook(lambda _module, _ins, outs: attention.append(outs[-1]))
                for block in self._model.decoder.blocks
            ]
            try:
                logits = self._model.logits(tokens, features)
            finally:
                for hook in hooks:
                    hook.remove()
        spoken = logits[:, len(start) : len(start) + room, : self._end].softmax(dim=-1)
        said = tokens[:, len(start) + 1 : len(start) + 1 + room]
        # Padding has no probability of its own.
        probabilities = spoken.gather(2, said.clamp(max=self._end - 1)[..., None])[..., 0]
        heads = self._model.alignment_heads.indices().T
        chosen = torch.stack([attention[layer][:, head] for layer, head in heads])
        return chosen, probabilities.double().cpu()


def _times(attention: torch.Tensor, before: int, probabilities: torch.Tensor) -> TokenTimes | None:
    """Return the start of each token of one text. ``attention`` has shape (heads, tokens, positions); ``before`` tokens
    precede the text.
    """
    weights = attention.softmax(dim=-1)
    std, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    matrix = median_filter((weights - mean) / std, _FILTER_WIDTH).mean(dim=0)[before:-1]
    rows, columns = dtw(-matrix.cpu())
    starts = np.asarray(columns)[np.diff(rows, prepend=-1).astype(bool)] * TIME_STEP
    return TokenTimes(starts, probabilities.numpy()) if len(starts) == len(probabilities) + 1 else None


def _model(folder: Path) -> Whisper:
    """Make openai-whisper's model with the weights of ``folder``."""
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


def load(settings: Settings, rows: int | None = None) -> WhisperBackend[torch.Tensor]:
    """Load ``settings.model`` on the machine's GPU, or on ``settings.executors`` threads of its processor.

    ``rows``: the items of each computed batch, if other than the device's default.

    Raises:
        IncompatibleError: The alias has no weights.
        IncompatibleError: The weights have an unknown layout.
    """
    weights = find_weights(settings)
    torch.set_num_threads(settings.executors)
    device, fitting = ("cuda", settings.batch_size) if torch.cuda.is_available() else ("cpu", 1)
    model = _model(weights.folder).to(device)
    tokenizer = tokenizers.Tokenizer.from_file(str(weights.folder / "tokenizer.json"))
    runtime = TorchRuntime(model, tokenizer, rows or fitting)
    extractor = FeatureExtractor(feature_size=model.dims.n_mels)
    return WhisperBackend(runtime, tokenizer, extractor, weights, "openai-whisper")
