"""What the benchmarks make of records: peers' texts, lateness after an overload, and the table."""

import pytest

from bench.__main__ import SHORT, names
from bench.figures import Result, command, spread
from bench.overload import back
from bench.peers.streams import WhisperLive, WhisperLiveKit
from bench.plot import draw, series
from bench.table import ROWS, render, written


def test_whisperlives_completed_segments_stay_when_they_are_sent_no_more() -> None:
    stream = WhisperLive()
    first = {"start": "0.000", "text": " One two.", "completed": True}
    second = {"start": "2.000", "text": " Three", "completed": False}
    assert stream.seen({"segments": [first, second]}) == ("One two. Three", "One two.")
    assert stream.seen({"segments": [second | {"completed": True}]}) == ("One two. Three ", "One two. Three")
    assert stream.seen({"message": "SERVER_READY"}) is None


def test_whisperlivekits_buffer_is_shown_and_its_lines_are_committed() -> None:
    lines = [{"text": "One two.", "speaker": 1}, {"text": None, "speaker": -2}]
    message = {"lines": lines, "buffer_transcription": " three"}
    assert WhisperLiveKit().seen(message) == ("One two. three", "One two.")


@pytest.mark.parametrize(
    ("late", "seconds"),
    [
        ([(101.0, 1.0), (112.0, 1.0)], 0.0),
        ([(85.0, 9.0), (101.0, 1.0), (112.0, 1.0), (125.0, 9.0)], 0.0),  # before and after
        ([(101.0, 9.0), (112.0, 1.0)], 10.0),
        ([(112.0, 1.0)], 10.0),  # nothing came in the first ten seconds
        ([(101.0, 1.0)], 20.0),
        ([(101.0, 9.0), (112.0, 9.0)], 20.0),
        ([(101.0, 1.0), (112.0, 9.0)], 20.0),  # late again in the second ten seconds
    ],
)
def test_latency_is_back_after_the_last_ten_seconds_that_were_late(
    late: list[tuple[float, float]], seconds: float
) -> None:
    assert back(late, 100.0, 120.0, 2.0) == seconds


def test_the_table_has_a_dash_where_nothing_was_measured_and_says_where_a_figure_is_from() -> None:
    result = Result("hop", "2026-11-25", "abc", "a machine", "python -m bench.hop", {"added ms": 14.4})
    table = render({"hop": result})
    assert "| P4 | front door: added at 320 frames/s, median, ms | 15 | 14 |  |" in table
    assert "| P4 | front door: frames a second on one core | 2000 | - |  |" in table
    assert "- hop: 2026-11-25, abc, a machine: `python -m bench.hop`" in table
    assert len({(row.goal, row.what) for row in ROWS}) == len(ROWS)
    assert written(None, "{x}") == "-"


def test_several_runs_are_a_median_with_their_spread() -> None:
    figures: dict[str, float | str] = {**spread([{"shown p95": 1.5}, {"shown p95": 1.9}, {"shown p95": 1.6}])}
    assert figures == {"runs": 3, "shown p95": 1.6, "shown p95, least": 1.5, "shown p95, most": 1.9}
    result = Result("live", "2026-11-25", "abc", "a machine", "python -m bench.live --runs 3", figures)
    assert written(result, "{shown p95:.2f}") == "1.60 (1.50 to 1.90)"
    assert spread([{"shown p95": 1.5}]) == {"shown p95": 1.5}


def test_a_command_has_the_settings_that_it_was_run_with() -> None:
    words = ["--model", "base"]
    assert command("live", words, {}) == "python -m bench.live --model base"
    assert command("live", words, {"KAPTION_BEAM_SIZE": "5"}) == "KAPTION_BEAM_SIZE=5 python -m bench.live --model base"


def test_the_plot_has_each_system_that_was_measured_by_its_streams() -> None:
    def result(late: float) -> Result:
        return Result("live", "", "", "", "", {"shown p95": late, "committed p95": 2 * late})

    found = {"live-16": result(0.9), "live-1": result(0.5), "live-base-11": result(1.4), "whisperlive-1": result(2.4)}
    assert series(found, "live", "shown p95") == [(1, 0.5), (16, 0.9)]
    picture = draw(found)
    assert ">Kaption<" in picture
    assert ">WhisperLive<" in picture
    assert ">WhisperLiveKit<" not in picture


def test_every_benchmark_is_run_where_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert names([]) == [*SHORT]
    assert names(["hop", "live-1"]) == ["hop", "live-1"]
    assert names(["none"]) == ["none"]
    with pytest.raises(SystemExit):
        names(["hops"])
    assert "hops is no benchmark: live-1" in capsys.readouterr().err
