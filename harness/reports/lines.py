"""What the live display says: a line, what is known of a step, a scenario or a thing under way, and their lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.text import MARKS, clean, one_line, took

STYLES = {"passed": "green", "done": "green", "cached": "green", "failed": "bold red", "error": "bold red"}


@dataclass(frozen=True)
class Line:
    """One line: `indent` levels deep, a mark (its style is `style`), a text, and at its end `right` (seconds)."""

    text: str
    mark: str = ""
    right: str = ""
    indent: int = 0
    style: str = ""
    bold: bool = False
    plain_only: bool = False
    verbatim: bool = False  # a command to paste: never broken, never cut


@dataclass
class Step:
    text: str
    outcome: str = "not_run"
    started: float | None = None
    seconds: float | None = None
    error: dict[str, Any] = field(default_factory=dict)


@dataclass
class Scenario:
    feature: str
    title: str
    steps: list[Step]
    outcome: str = "not_run"
    started: float = 0


@dataclass
class UnderWay:
    """A task, command or wait that has started and not ended."""

    text: str
    started: float
    stage: str
    scenario: str | None
    within: float = 0
    hold_for: float = 0
    seen: str = "nothing"
    seen_at: float = 0


def ticking(seconds: float) -> str:
    """Seconds that still run, as whole ones."""
    return took(int(max(seconds, 0)), digits=0)


def ended(text: str, outcome: str, seconds: float | None, **layout: Any) -> Line:
    """A finished thing; what did not simply pass says so in words, too."""
    shown = "" if outcome in ("passed", "done") else outcome.replace("_", " ")
    right = ", ".join(filter(None, (shown, "" if outcome in ("not_run", "cached") else took(seconds))))
    return Line(text, MARKS.get(outcome, "·"), right, style=STYLES.get(outcome, "yellow"), **layout)


def fault(error: object, indent: int) -> list[Line]:
    """What was expected, last seen and where, and the command to paste; of a bare text that text."""
    if not error:
        return []
    shown = error if isinstance(error, dict) else {"message": error}
    lines = []
    if shown.get("layer"):
        lines.append(_labelled("layer", shown["layer"], indent))
    if shown.get("message") and not (shown.get("expected") and shown.get("seen")):
        lines.append(Line(one_line(shown["message"]), indent=indent))
    for name, label in (("expected", "expected"), ("seen", "last seen"), ("where", "where")):
        if shown.get(name):
            lines.append(_labelled(label, shown[name], indent))
    if paste := clean(shown.get("paste")).strip():
        lines.append(Line(paste, "$", indent=indent, verbatim=True))
    return lines


def _labelled(label: str, value: object, indent: int) -> Line:
    return Line(f"{label:<10} {one_line(value)}", indent=indent)


def of_scenario(scenario: Scenario, seconds: float | None, reason: object) -> list[Line]:
    """A scenario that is over: its outcome, and where it did not pass the step and its fault, or the reason."""
    lines = [ended(scenario.title, scenario.outcome, seconds, indent=2)]
    at = next((step for step in scenario.steps if step.outcome in ("failed", "interrupted")), None)
    if at is not None:
        return [*lines, Line(at.text, indent=3, bold=True), *fault(at.error, indent=4)]
    if reason and scenario.outcome != "passed":
        lines.append(Line(one_line(reason), indent=3))
    return lines


def of_steps(scenario: Scenario, now: float, spinner: str) -> list[Line]:
    """A scenario under way: the steps around the present one, with marks."""
    lines = [Line(f"{scenario.feature} › {scenario.title}", indent=1)]
    at = sum(step.outcome not in ("not_run", "under way") for step in scenario.steps)
    for step in scenario.steps[max(at - 4, 0) : at + 4]:
        if step.outcome == "under way":
            lines.append(Line(step.text, spinner, ticking(now - (step.started or now)), 2, "cyan", bold=True))
        elif step.outcome == "not_run":
            lines.append(Line(step.text, "·", indent=2))
        else:
            style = STYLES.get(step.outcome, "")
            lines.append(Line(step.text, MARKS.get(step.outcome, "·"), took(step.seconds), 2, style))
    more = len(scenario.steps) - at - 4
    return lines + ([Line(f"{more} more", "…", indent=2)] if more > 0 else [])


def of_wait(wait: UnderWay, now: float, depth: int) -> list[Line]:
    """A wait under way: how much of its limit is gone, what it last saw, how long that must hold."""
    late = "yellow" if wait.within and now - wait.started > 0.8 * wait.within else ""
    lines = [
        Line(f"waiting: {wait.text}", "…", of_limit(wait, now), depth, late),
        Line(f"last saw {wait.seen}", "", f"for {ticking(now - wait.seen_at)}", depth + 1),
    ]
    return lines + ([Line(f"must then hold for {wait.hold_for:g} s", indent=depth + 1)] if wait.hold_for else [])


def of_limit(wait: UnderWay, now: float) -> str:
    return f"{ticking(now - wait.started)} of {ticking(wait.within + wait.hold_for)}"
