"""Counts word errors of finals alone, each session segment decoded like a live final. No Kafka, no clock, no partials.

    .venv/bin/python -m bench.finals [--streams 32] [--seconds 120] [--backend auto] [--beam 1] [--pad 16] [--shipped] [--files [--join 15]]

The texts are those of ``bench.live`` for the same streams, or with ``--files`` those of ``bench.file``, so minutes are enough to
compare beams, margins and backends. ``ms`` is the time of a final on one thread, one at a time.
"""

import argparse
import time
from dataclasses import replace

import numpy as np

from bench import figures as kept
from bench.live import FRAME, RATE
from bench.simulate import NoRedaction
from bench.speech import Spoken, joined
from bench.wer import wer
from kaption.adapters.settings import Settings
from kaption.cli.demo.scoring import load_talks
from kaption.domain.decoding.port import SAMPLE_RATE, VAD_FRAME, Backend
from kaption.domain.records import AudioRecord, Latency, Output, RunKey
from kaption.domain.run.config import Ports, SessionConfig
from kaption.domain.run.session import Session
from kaption_gpu.engine.backends import make_backend
from kaption_gpu.engine.vad import SileroDetector
from kaption_schemas.reasons import Reason
from kaption_schemas.records import FinalTranscript
from kaption_schemas.topics import Type


def finals(spoken: Spoken, backend: Backend, config: SessionConfig, took: list[float]) -> list[str]:
    """Return the texts of one stream's finals; append the seconds of each decode to ``took``."""
    session = Session(
        RunKey("default", "stream", "run"), Latency.BATCH, config, Ports(SileroDetector, NoRedaction(), backend.info)
    )
    size, now, found = round(FRAME * RATE), 0, list[Output]()
    for number, at in enumerate(range(0, len(spoken.pcm), size)):
        body, now = spoken.pcm[at : at + size].tobytes(), round((at + size) * 1000 / RATE)
        found += session.feed(
            AudioRecord(Type.CHUNK, session.key, number, now, now, number, at, len(body) // 2, RATE, 1, body)
        )
        found += _decode(session, backend, now, took)
    session.close(Reason.ENDED, now)
    found += _decode(session, backend, now, took)
    return [output.text for output in found if isinstance(output, FinalTranscript)]


def _decode(session: Session, backend: Backend, now: int, took: list[float]) -> list[Output]:
    """Decode the windows that the session wants."""
    found: list[Output] = []
    while wanted := session.wants(now):
        window = session.begin(wanted[0].window_id)
        begin = time.perf_counter()
        [decoded] = backend.transcribe([window])
        took.append(time.perf_counter() - begin)
        found += session.apply(window.id, decoded, now)
        session.drafted()
        session.committed()
    return found


def main() -> None:
    """Decode and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--beam", type=int, default=SessionConfig().beam_size)
    parser.add_argument("--pad", type=int, default=SessionConfig().rules.pad, help="frames of 32 ms before the speech")
    parser.add_argument("--files", action="store_true", help="segments as files have them")
    parser.add_argument("--join", type=float, help="of files: seconds up to which segments are joined")
    parser.add_argument("--shipped", action="store_true", help="the demo's speech in place of the prompts")
    kept.add_option(parser)
    arguments = parser.parse_args()
    backend = make_backend(Settings(backend=arguments.backend, executors=1))
    backend.warm_up()
    config = SessionConfig()
    rules = config.file_rules if arguments.files else config.rules
    if arguments.join is not None:
        rules = replace(rules, join=round(arguments.join * SAMPLE_RATE / VAD_FRAME))
    config = replace(config, beam_size=arguments.beam, file_rules=replace(rules, pad=arguments.pad))
    stretches = joined(arguments.streams, arguments.seconds)
    if arguments.shipped:
        stretches = [Spoken(np.frombuffer(t.pcm, np.int16).reshape(-1, 1), t.text) for t in load_talks()]
    took: list[float] = []
    said = [" ".join(finals(stretch, backend, config, took)) for stretch in stretches]
    figures = {
        "words": float(sum(len(stretch.text.split()) for stretch in stretches)),
        "wer": wer([stretch.text for stretch in stretches], said),
        "finals": float(len(took)),
        "ms": 1000 * sum(took) / len(took),
    }
    print(
        f"{backend.info.backend}: WER {100 * figures['wer']:.2f} % of {figures['words']:.0f} words, "
        f"{figures['finals']:.0f} finals, {figures['ms']:.0f} ms each"
    )
    kept.save(arguments, "finals", figures)


if __name__ == "__main__":
    main()
