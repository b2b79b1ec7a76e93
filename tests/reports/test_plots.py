"""The plot of requests while something changes: its bars, its axis, and what it says in words."""

from __future__ import annotations

import re
from typing import Any

import pytest

from harness.reports.plots import BARS, BASE, LEFT, RIGHT, TALL, TICKS, plot


def traffic(right: list[int], failed: list[int], wrong: list[int], *changes: dict[str, Any]) -> dict[str, Any]:
    """What the record has of a stream of requests."""
    counted = {"right": right, "failed": failed, "wrong": wrong}
    return {"site": "blog", "rate": 20, "bucket": 0.5, "changes": list(changes), **counted}


def change(after: float, failed: int = 0, wrong: int = 0) -> dict[str, Any]:
    return {"what": "coreos-2 is lost", "after": after, "made": 30, "failed": failed, "wrong": wrong,
            "right_after": 2.5 if failed or wrong else 0.0, "first_seen": ""}  # fmt: skip


def strokes(path: str) -> list[tuple[float, ...]]:
    """x, foot and height of each bar."""
    return [tuple(map(float, it)) for it in re.findall(r"M([\d.]+) ([\d.]+)v-([\d.]+)", path)]


def test_bars_of_a_moment_stand_on_each_other() -> None:
    right, failed, wrong = plot(traffic([10, 4, 0], [0, 3, 10], [0, 3, 0], change(0.5))).bars

    assert [(foot, tall) for _, foot, tall in strokes(right.path)] == [(BASE, TALL), (BASE, 19.2)]
    assert [(foot, tall) for _, foot, tall in strokes(failed.path)] == [(50.8, 14.4), (BASE, TALL)]
    assert [(foot, tall) for _, foot, tall in strokes(wrong.path)] == [(36.4, 14.4)]
    assert strokes(right.path)[1][0] == strokes(failed.path)[0][0] == strokes(wrong.path)[0][0]


@pytest.mark.parametrize("length", [1, 7, 108, 109, 600, 5000])
def test_whatever_its_length_it_is_one_picture(length: int) -> None:
    drawn = plot(traffic([10] * length, [1] * length, [0] * length, change(length / 4, failed=3)))

    at = [x for bars in drawn.bars for x, _, _ in strokes(bars.path)]
    assert len(at) <= 2 * BARS and min(at) > LEFT and max(at) <= RIGHT
    assert 1 <= len(drawn.ticks) <= TICKS + 2 and all(LEFT <= tick.x <= RIGHT + 0.1 for tick in drawn.ticks)
    assert LEFT <= drawn.changes[0].x <= RIGHT
    assert sum(len(bars.path) for bars in drawn.bars) < 5000


def test_axis_counts_from_the_first_change() -> None:
    drawn = plot(traffic([10] * 20, [0] * 20, [0] * 20, change(2.0), change(6.5)))

    assert [tick.text for tick in drawn.ticks] == ["-2 s", "0 s", "2 s", "4 s", "6 s", "8 s"]
    assert drawn.changes[0].x == next(tick.x for tick in drawn.ticks if tick.text == "0 s")
    assert [it.number for it in drawn.changes] == [1, 2]


def test_words_say_what_the_bars_do() -> None:
    drawn = plot(traffic([10, 9], [0, 1], [0, 0], change(0.5, failed=1), change(0.7)))

    assert drawn.words == "20 requests at 20 a second"
    assert drawn.totals == (("right", 19), ("failed", 1), ("wrong", 0))
    assert [it.words for it in drawn.changes] == [
        "coreos-2 is lost: 30 requests, 1 failed, 0 wrong, right again after 2.5 s",
        "coreos-2 is lost: 30 requests, all right",
    ]


def test_no_request_makes_an_empty_plot() -> None:
    drawn = plot(traffic([], [], []))

    assert not any(bars.path for bars in drawn.bars)
    assert drawn.words.startswith("0 requests") and drawn.changes == ()
