"""Measures files through the whole pipeline, in turn with faster-whisper on the same speech, weights and machine.

    .venv/bin/python -m bench.file [--count 10] [--seconds 60] [--runs 3] [--model base]

Kaption: from objects in the store to finals on the topic, all at once. faster-whisper: its BatchedInferencePipeline as in its
README (one file after another, batches of 16), the same in the thread layout that is fastest here (two workers of one
thread, a file each), and its sequential way (beam 5, voice detection). All in int8, English; loading the model does not count.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from faster_whisper import BatchedInferencePipeline, WhisperModel

from bench import figures as kept
from bench.live import RATE, files, started
from bench.processes import end_as_by_hand
from bench.speech import Spoken, joined
from bench.wer import wer
from kaption.adapters.models.weights import find_weights
from kaption.adapters.settings import Settings
from kaption.testing.brokers import kafka_home

Audio = npt.NDArray[np.float32]
Transcribe = Callable[[Audio], str]


def model(threads: int, workers: int) -> WhisperModel:
    """Load the weights with faster-whisper."""
    folder = str(find_weights(Settings()).folder)
    return WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=threads, num_workers=workers)


def batched(whisper: WhisperModel) -> Transcribe:
    """Transcribe as in faster-whisper's README."""
    pipeline = BatchedInferencePipeline(model=whisper)
    return lambda audio: " ".join(s.text.strip() for s in pipeline.transcribe(audio, batch_size=16, language="en")[0])


def sequential(whisper: WhisperModel) -> Transcribe:
    """Transcribe sequentially, with the options of the offline pass."""
    options = {"beam_size": 5, "vad_filter": True, "condition_on_previous_text": False, "language": "en"}
    return lambda audio: " ".join(s.text.strip() for s in whisper.transcribe(audio, **options)[0])


def peer(transcribe: Transcribe, stretches: list[Spoken], at_once: int) -> tuple[float, float]:
    """Return times real time and word error rate, with ``at_once`` concurrent files."""
    audios = [stretch.pcm[:, 0].astype(np.float32) / 32768 for stretch in stretches]
    begin = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        said = list(pool.map(transcribe, audios))
    took = time.monotonic() - begin
    return sum(map(len, audios)) / RATE / took, wer([stretch.text for stretch in stretches], said)


async def main() -> None:
    """Run each in turn, ``--runs`` times; the last lines are the median of the runs' ratios."""
    end_as_by_hand()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runs", type=int, default=3)
    kept.add_model_option(parser)
    kept.add_option(parser)
    arguments = parser.parse_args()
    kept.use_model(arguments)
    home = kafka_home()
    if home is not None:
        os.environ.setdefault("KAFKA_HOME", str(home))
    stretches = joined(arguments.count, arguments.seconds)
    one, two = model(2, 1), model(1, 2)
    peers: dict[str, tuple[Transcribe, int]] = {
        "batched, as its README": (batched(one), 1),
        "batched, two workers": (batched(two), 2),
        "sequential": (sequential(one), 1),
    }
    runs: list[dict[str, float]] = []
    for _ in range(arguments.runs):
        figures: dict[str, float] = {}
        for name, (transcribe, at_once) in peers.items():
            figures[name], errors = await asyncio.to_thread(peer, transcribe, stretches, at_once)
            figures[f"{name}, wer"] = errors
            print(f"{name}: {figures[name]:.1f} times real time, WER {100 * errors:.2f} %", flush=True)
        async with started("apache") as up:
            figures["kaption"], figures["kaption, wer"] = await files(up.settings(), stretches)
        for name in peers:
            figures[f"over {name}"] = figures["kaption"] / figures[name]
        runs.append(figures)
    reached = kept.spread(runs)
    for name in peers:
        print(f"kaption {reached['kaption']:.1f} times real time, {reached[f'over {name}']:.2f} times {name}")
    kept.save(arguments, "file", reached)


if __name__ == "__main__":
    asyncio.run(main())
