"""Requests while something changes, laid out as a plot: for each moment how many were right, failed and wrong.

Lengths are units of the picture's own coordinates, about a pixel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

Item = dict[str, Any]
OUTCOMES = ("right", "failed", "wrong")
# The picture: where its bars begin and end, where they stand, their height, and its own
LEFT, RIGHT, BASE, TALL, WIDTH, HEIGHT = 8, 332, 70, 48, 340, 90
# Bars, and marks of the axis, at most
BARS, TICKS = 108, 7
# Seconds between two marks of the axis
STEPS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600)


@dataclass(frozen=True)
class Bars:
    """All bars of one outcome, as a path of strokes."""

    outcome: str
    path: str


@dataclass(frozen=True)
class Tick:
    """A mark of the axis: seconds from the first change (from the start, where nothing changed)."""

    x: float
    text: str


@dataclass(frozen=True)
class Change:
    """A moment at which something changed, and what became of the requests since then, in words."""

    x: float
    number: int
    words: str


@dataclass(frozen=True)
class Plot:
    """The requests of one stream."""

    site: str
    words: str
    totals: tuple[tuple[str, int], ...]
    stroke: float
    bars: tuple[Bars, ...]
    ticks: tuple[Tick, ...]
    changes: tuple[Change, ...]


def plot(traffic: Item) -> Plot:
    """Of what the record has of one stream (event `traffic`)."""
    together = -(-len(traffic["right"]) // BARS) or 1
    bars = [[sum(some) for some in _chunks(traffic[outcome], together)] for outcome in OUTCOMES]
    seconds = max(len(bars[0]) * together * traffic["bucket"], 1.0)
    scale = (RIGHT - LEFT) / seconds
    pitch = scale * together * traffic["bucket"]
    most = max(map(sum, zip(*bars, strict=True)), default=0) or 1
    zero = traffic["changes"][0]["after"] if traffic["changes"] else 0.0
    totals = [(outcome, sum(traffic[outcome])) for outcome in OUTCOMES]
    return Plot(
        traffic["site"],
        f"{sum(number for _, number in totals)} requests at {traffic['rate']} a second",
        tuple(totals),
        round(pitch * 0.8, 2),
        tuple(_bars(bars, pitch, TALL / most)),
        tuple(_ticks(seconds, zero, scale)),
        tuple(_change(number, it, scale) for number, it in enumerate(traffic["changes"], 1)),
    )


def _chunks(values: list[int], length: int) -> Iterable[list[int]]:
    return (values[at : at + length] for at in range(0, len(values), length))


def _bars(bars: list[list[int]], pitch: float, unit: float) -> Iterable[Bars]:
    """Those of each outcome stand on those of the one before."""
    below = list(zip(*(accumulate(stack, initial=0) for stack in zip(*bars, strict=True)), strict=True))
    for outcome, values, bases in zip(OUTCOMES, bars, below, strict=False):
        strokes = [
            f"M{LEFT + (number + 0.5) * pitch:.1f} {BASE - base * unit:.1f}v{-value * unit:.1f}"
            for number, (value, base) in enumerate(zip(values, bases, strict=True))
            if value
        ]
        yield Bars(outcome, "".join(strokes))


def _ticks(seconds: float, zero: float, scale: float) -> Iterable[Tick]:
    step = next((step for step in STEPS if seconds / step <= TICKS), STEPS[-1])
    for at in range(-int(zero // step) * step, int(seconds - zero) + 1, step):
        yield Tick(round(LEFT + (at + zero) * scale, 1), f"{at} s")


def _change(number: int, change: Item, scale: float) -> Change:
    bad = f"{change['failed']} failed, {change['wrong']} wrong, right again after {change['right_after']:g} s"
    became = bad if change["failed"] or change["wrong"] else "all right"
    words = f"{change['what']}: {change['made']} requests, {became}"
    return Change(round(LEFT + change["after"] * scale, 1), number, words)
