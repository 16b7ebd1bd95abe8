"""Measures a backend's batches: milliseconds by size, times real time, and whether other windows change a window's text.

    .venv/bin/python -m bench.batches [--backend auto] [--sizes 1 4 8 16] [--count 64] [--executors 2] [--model base]

Windows are whole prompts of up to ``SECONDS``, padded to ``PADDED``, decoded like live finals: greedy, with word times. All
executors decode at once; the first pass of a size does not count. On a GPU, use ``--backend openai-whisper`` in an
environment of ``make test-torch``.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice

from bench import figures as kept
from bench.asterisk import NO_SPEECH, Prompt, prompts
from bench.wer import wer
from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import FLOOR_SECONDS, SAMPLE_RATE, Backend, DecodeOptions, Kind, Window
from kaption_gpu.engine.backends import make_backend

SECONDS = 6
#: The shortest length that finals are padded to.
PADDED = FLOOR_SECONDS[Kind.FINAL]
PASSES = 3


def fitting() -> Iterator[Prompt]:
    """Yield the prompts that fit, in order, repeatedly; none if there are no prompts."""
    return cycle([prompt for prompt in prompts(4) if prompt.audio().size <= SECONDS * SAMPLE_RATE])


def windows(spoken: Sequence[Prompt]) -> list[Window]:
    """Make a final's window of each prompt."""
    options = DecodeOptions(language="en", word_times=True)
    padded = PADDED * SAMPLE_RATE
    return [Window(number, Kind.FINAL, prompt.audio(), padded, options) for number, prompt in enumerate(spoken)]


def timed(backend: Backend, work: Sequence[Window], size: int, executors: int) -> tuple[list[str], list[float], float]:
    """Decode ``work`` in batches of ``size``; return the texts, the seconds of each batch, and the seconds of all."""
    batches = [list(work[at : at + size]) for at in range(0, len(work), size)]

    def decode(batch: list[Window]) -> tuple[list[str], float]:
        begin = time.perf_counter()
        texts = [decoded.text for decoded in backend.transcribe(batch)]
        return texts, time.perf_counter() - begin

    begin = time.perf_counter()
    with ThreadPoolExecutor(executors) as threads:
        found = list(threads.map(decode, batches))
    return [text for texts, _ in found for text in texts], [took for _, took in found], time.perf_counter() - begin


def device(backend: str) -> str:
    """Return the device: PyTorch's GPU, or the processor."""
    if backend == "openai-whisper":
        import torch  # noqa: PLC0415  # an extra, which only this backend needs

        if torch.cuda.is_available():
            return str(torch.cuda.get_device_name())
    return "processor"


def main() -> None:
    """Measure each size in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--count", type=int, default=64, help="windows; the prompts come again when there are too few")
    parser.add_argument("--executors", type=int, default=Settings().executors)
    kept.add_model_option(parser)
    kept.add_option(parser)
    arguments = parser.parse_args()
    kept.use_model(arguments)
    spoken = list(islice(fitting(), arguments.count))
    if not spoken:
        raise SystemExit(NO_SPEECH)
    work = windows(spoken)
    heard = sum(window.audio.size for window in work) / SAMPLE_RATE
    backend = make_backend(
        Settings(backend=arguments.backend, executors=arguments.executors, batch_size=max(arguments.sizes))
    )
    backend.warm_up()
    figures: dict[str, float | str] = {"backend": backend.info.backend, "device": device(backend.info.backend)}
    print(f"{figures['backend']} on {figures['device']}: {len(work)} windows of {heard:.0f} s in all", flush=True)
    alone: list[str] = []
    for size in arguments.sizes:
        timed(backend, work, size, arguments.executors)
        runs = [timed(backend, work, size, arguments.executors) for _ in range(PASSES)]
        texts = runs[0][0]
        alone = alone or texts
        speed = statistics.median(heard / seconds for _, _, seconds in runs)
        batch = 1000 * statistics.median(took for _, each, _ in runs for took in each)
        other = sum(a != b for a, b in zip(alone, texts, strict=True))
        wrong = wer([prompt.text for prompt in spoken], texts)
        figures |= {f"{size} a batch, times real time": speed, f"{size} a batch, ms": batch}
        figures |= {f"{size} a batch, other texts": float(other), f"{size} a batch, wer": wrong}
        print(
            f"{size:3} a batch: {speed:7.1f} times real time, {batch:6.1f} ms a batch, WER {100 * wrong:.2f} %, "
            f"{other} texts other than of batches of {arguments.sizes[0]}",
            flush=True,
        )
    kept.save(arguments, "batches", figures)


if __name__ == "__main__":
    main()
