"""Measures a peer's live streams in real time like ``bench.live``: the same speech, frames, words and percentiles.

    bench/peers/setup.sh whisperlive
    .venv/bin/python -m bench.peers whisperlive [--streams 4] [--count 4] [--seconds 120]

Shown means that the peer sends a word, committed that it calls it completed or committed; the clock is the client's. WER counts
the client's last text. Nothing is downloaded: the weights are Kaption's.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from aiohttp import ClientConnectionError, ClientSession, ClientWebSocketResponse, WSMsgType

from bench import figures as kept
from bench.live import FRAME, RATE
from bench.peers.streams import PEERS, Peer, Stream
from bench.processes import Others, end_as_by_hand, shares, usages
from bench.speech import Heard, Spoken, joined, offline
from bench.wer import wer
from bench.words import Showing, erased, flicker, latencies, percentile
from kaption.adapters.models.weights import find_weights
from kaption.adapters.processes.tcp_ports import free_port
from kaption.adapters.settings import Settings
from kaption.testing.processes import Child

START_SECONDS = 90
#: Seconds without a change of its text after which a peer counts as finished, if it does not signal its end.
QUIET_SECONDS = 10.0
#: Seconds that a peer may continue after its audio has ended.
REST_SECONDS = 90.0


class Listener:
    """Records what one stream's reader sees."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.began = 0.0
        self.showings: list[Showing] = []
        self.changed = time.monotonic()
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()

    async def listen(self, socket: ClientWebSocketResponse) -> None:
        """Note every message until the connection ends."""
        async for raw in socket:
            if raw.type is not WSMsgType.TEXT:
                break
            message = json.loads(raw.data)
            if self.stream.ready(message):
                self.ready.set()
            if self.stream.ended(message):
                self.ended.set()
            seen = self.stream.seen(message)
            if seen is not None and (not self.showings or seen != (self.showings[-1].text, self.showings[-1].stable)):
                now = time.monotonic()
                # Its segments' times are the model's guesses, so words are searched in all speech so far.
                self.showings.append(Showing(now - self.began, 0, 0.0, now - self.began, *seen))
                self.changed = now
        self.ended.set()

    async def rest(self) -> None:
        """Wait until the peer has finished, or for ``REST_SECONDS``."""
        end = time.monotonic() + REST_SECONDS
        while not self.ended.is_set() and time.monotonic() < end:
            await asyncio.sleep(0.2)
            if not self.stream.end_at_once and time.monotonic() - self.changed > QUIET_SECONDS:
                break


async def play(session: ClientSession, url: str, peer: Peer, spoken: Spoken) -> list[Showing]:
    """Play one stream in real time, to its end."""
    stream = peer.stream()
    listener = Listener(stream)
    async with session.ws_connect(url, max_msg_size=0) as socket:
        listening = asyncio.create_task(listener.listen(socket))
        if stream.opening is not None:
            await socket.send_str(stream.opening)
        async with asyncio.timeout(START_SECONDS):
            await listener.ready.wait()
        listener.began = time.monotonic()
        size = round(FRAME * RATE)
        for number, first in enumerate(range(0, len(spoken.pcm), size)):
            await asyncio.sleep(max(0.0, listener.began + (number + 1) * FRAME - time.monotonic()))
            await socket.send_bytes(stream.frame(spoken.pcm[first : first + size, 0]))
        listener.changed = time.monotonic()
        if stream.end_at_once:
            await socket.send_bytes(stream.end)
        await listener.rest()
        if not stream.end_at_once and not socket.closed:
            await socket.send_bytes(stream.end)
        listening.cancel()
    return listener.showings


async def answers(session: ClientSession, url: str, child: Child) -> None:
    """Wait until the server accepts connections. Raises ``RuntimeError`` with its output if it ends or takes too long."""
    end = time.monotonic() + START_SECONDS
    while child.running and time.monotonic() < end:
        try:
            async with session.get(url):
                return
        except ClientConnectionError:
            await asyncio.sleep(0.5)
        except ValueError:  # it answers, though not in HTTP
            return
    raise RuntimeError(f"the peer did not start:\n{child.output()}")


def report(seen: list[list[Showing]], stretches: list[Spoken], heard: list[Heard]) -> dict[str, float]:
    """Print and return the figures of the streams."""
    shown, committed, late = list[float](), list[float](), 0
    for showings, stretch, words in zip(seen, stretches, heard, strict=True):
        begin = len(stretch.pcm) / RATE / 2
        more = latencies(showings, words, begin)
        shown, committed = shown + more[0], committed + more[1]
        late += sum(end >= begin for _, end in words.words)
    said = [showings[-1].text if showings else "" for showings in seen]
    figures = {
        "words": float(sum(len(s.text.split()) for s in stretches)),
        "wer": wer([s.text for s in stretches], said),
        "revisions a word": sum(map(erased, seen)) / max(1, sum(len(text.split()) for text in said)),
        "flicker": flicker(seen),
        "shown of all": len(shown) / max(1, late),
        "committed of all": len(committed) / max(1, late),
    }
    for name, values in (("shown", shown), ("committed", committed)):
        figures |= {f"{name} p50": percentile(values, 0.5), f"{name} p95": percentile(values, 0.95)}
        print(
            f"  {name:9} p50 {figures[f'{name} p50']:.2f} s, p95 {figures[f'{name} p95']:.2f} s "
            f"({len(values)} of {late} words)"
        )
    print(f"  revisions: {figures['revisions a word']:.2f} shown words a word taken back or changed")
    print(f"  flicker: {100 * figures['flicker']:.0f} % of records change or take back a word that was shown")
    print(f"  WER {100 * figures['wer']:.2f} % of {figures['words']:.0f} words")
    return figures


async def run(peer: Peer, stretches: list[Spoken], heard: list[Heard], at_once: int) -> dict[str, float]:
    """Start the peer's server, play the stretches, ``at_once`` at a time, and report."""
    port, weights = free_port(), find_weights(Settings()).folder
    env = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as folder:
        child = Child(peer.command(peer.programs, port, weights), Path(folder) / "peer.log", env)
        child.spawn()
        try:
            async with ClientSession() as session:
                await answers(session, f"http://127.0.0.1:{port}/", child)
                begin, before, others = time.monotonic(), usages(child.pid), Others()
                seen: list[list[Showing]] = []
                for first in range(0, len(stretches), at_once):
                    batch = stretches[first : first + at_once]
                    url = f"http://127.0.0.1:{port}{peer.path}"
                    seen += await asyncio.gather(*(play(session, url, peer, stretch) for stretch in batch))
                used = shares(before, usages(child.pid), time.monotonic() - begin)
                beside = others.cores(used)
        finally:
            child.stop()
    print(f"{peer.package}, {at_once} at a time: {len(stretches)} streams")
    figures = report(seen, stretches, heard) | {"cores": sum(used.values()), "cores of others": beside}
    print(f"  {figures['cores']:.2f} cores, {beside:.2f} of others", flush=True)
    return figures


def main() -> None:
    """Measure one peer with one number of streams."""
    end_as_by_hand()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("--streams", type=int, default=1, help="streams at a time")
    parser.add_argument("--count", type=int, default=1, help="streams in all")
    parser.add_argument("--seconds", type=float, default=120)
    kept.add_option(parser)
    arguments = parser.parse_args()
    peer = PEERS[arguments.peer]
    stretches = joined(arguments.count, arguments.seconds)
    heard = offline(stretches)
    figures = asyncio.run(run(peer, stretches, heard, arguments.streams))
    kept.save(arguments, "peers", {"peer": peer.package, "setting": peer.setting, **figures})


if __name__ == "__main__":
    main()
