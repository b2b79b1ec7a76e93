"""The live display for a person who watches: it follows the event log and knows nothing else.

`Board` is the state: events go in, lines for good come out, and it can be asked what is under way. `Display` reads
the log in a thread and shows the board: on a terminal finished things stand above a region that lives, elsewhere only
plain lines are printed. Times are the log's, in seconds since the epoch.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from harness.report import clean, took

Event = dict[str, Any]

POLL = 0.1  # seconds between two looks at the log
REMIND = 10  # seconds between two plain lines about the same thing
WIDEST = 100  # columns; wider, the eye loses the line between a title and its seconds
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
MARKS = {"passed": "✓", "done": "✓", "cached": "✓", "failed": "✗", "error": "✗", "not_run": "-", "interrupted": "!"}
STYLES = {"passed": "green", "done": "green", "cached": "green", "failed": "bold red", "error": "bold red"}
VERBATIM: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False}
# What printing raises when the console is gone; rich makes a SystemExit of a broken pipe.
GONE = (OSError, SystemExit)
# For a terminal that has no Unicode.
ASCII = str.maketrans({"✓": "+", "✗": "x", "…": "~", "·": "-", "›": ">"} | dict.fromkeys(SPINNER, "*"))


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
    error: Event = field(default_factory=dict)


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


class Board:
    """What is known of a run so far. Events of another version of the log that it cannot read, it passes over."""

    def __init__(self) -> None:
        self.run = ""
        self.started: float | None = None
        self.stages: dict[str, float] = {}
        self.tasks: dict[str, UnderWay] = {}
        self.commands: dict[str, UnderWay] = {}
        self.waits: dict[str, UnderWay] = {}
        self.scenarios: dict[str, Scenario] = {}
        self.current: str | None = None
        self._feature = ""
        self._reminded: dict[object, int] = {}

    def feed(self, event: Event) -> list[Line]:
        """Takes one event in; gives the lines that are now final."""
        try:
            take = getattr(self, "_" + event["kind"].replace(".", "_"), None)
            return take(event) or [] if take else []
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            return []

    @property
    def stage(self) -> str:
        return next(reversed(self.stages), "")

    # -- events ------------------------------------------------------------------------------------------------

    def _run_started(self, event: Event) -> None:
        self.run = " · ".join(_one_line(event[name]) for name in ("target", "run_id") if event.get(name))
        self.started = float(event["t"])

    def _stage_started(self, event: Event) -> list[Line]:
        lines = self._drop_scenario(event["t"])
        self.stages[_one_line(event["stage"])] = float(event["t"])
        return [*lines, Line(self.stage, bold=True)]

    def _stage_ended(self, event: Event) -> list[Line]:
        stage, outcome = _one_line(event["stage"]), event.get("outcome", "ended")
        lines = self._drop_scenario(event["t"])
        for table in (self.tasks, self.commands, self.waits):
            for key in [key for key, item in table.items() if item.stage == stage]:
                item = table.pop(key)
                if table is self.tasks:
                    lines.append(_ended(item.text, "interrupted", event["t"] - item.started, indent=1))
        started = self.stages.pop(stage, event["t"])
        counts = f": {self.counted()}" if stage == "runbook" and self.scenarios else ""
        lines.append(_ended(stage + counts, outcome, event.get("seconds", event["t"] - started), bold=True))
        return lines + _fault(event.get("error"), indent=1)

    def _task_started(self, event: Event) -> None:
        self.tasks[event["task"]] = self._under_way(event, event["task"])

    def _task_ended(self, event: Event) -> list[Line]:
        item = self.tasks.pop(event["task"], None)
        seconds = event.get("seconds", event["t"] - item.started if item else None)
        line = _ended(_one_line(event["task"]), event.get("outcome", "done"), seconds, indent=1)
        return [line, *_fault(event.get("error"), indent=2)]

    def _scenario_planned(self, event: Event) -> None:
        steps = [Step(_one_line(f"{step.get('keyword', '')} {step['text']}")) for step in event["steps"]]
        feature = event.get("feature_title") or event.get("feature", "")
        self.scenarios[event["id"]] = Scenario(_one_line(feature), _one_line(event["title"]), steps)

    def _scenario_started(self, event: Event) -> list[Line]:
        lines = self._drop_scenario(event["t"])
        scenario = self.scenarios[event["id"]]
        scenario.outcome, scenario.started = "under way", float(event["t"])
        self.current = event["id"]
        return [*lines, *self._heading(scenario), Line(scenario.title, indent=2, plain_only=True)]

    def _scenario_ended(self, event: Event) -> list[Line]:
        scenario = self.scenarios[event["id"]]
        began = scenario.started if scenario.outcome == "under way" else event["t"]
        scenario.outcome = event["outcome"]
        if event["id"] == self.current:
            self._forget_scenario()
        seconds = event.get("seconds", event["t"] - began)
        return self._heading(scenario) + _scenario_lines(scenario, seconds, event.get("reason"))

    def _step_started(self, event: Event) -> None:
        step = self.scenarios[event["id"]].steps[event["index"]]
        step.outcome, step.started = "under way", float(event["t"])

    def _step_ended(self, event: Event) -> list[Line]:
        step = self.scenarios[event["id"]].steps[event["index"]]
        step.outcome, step.error = event["outcome"], event.get("error") or {}
        step.seconds = event.get("seconds", event["t"] - (step.started or event["t"]))
        return [_ended(step.text, step.outcome, step.seconds, indent=3, plain_only=True)]

    def _command_started(self, event: Event) -> None:
        self.commands[event["id"]] = self._under_way(event, event.get("line") or shlex.join(event["argv"]))

    def _command_ended(self, event: Event) -> None:
        self.commands.pop(event["id"], None)

    def _wait_started(self, event: Event) -> None:
        wait = self._under_way(event, event["what"])
        wait.within, wait.hold_for = float(event.get("within") or 0), float(event.get("hold_for") or 0)
        wait.seen_at = wait.started
        self.waits[event["id"]] = wait

    def _wait_seen(self, event: Event) -> None:
        wait = self.waits[event["id"]]
        wait.seen, wait.seen_at = _one_line(event["value"]), float(event["t"])

    def _wait_ended(self, event: Event) -> None:
        self.waits.pop(event["id"], None)

    def _leak(self, event: Event) -> list[Line]:
        what = _one_line(f"leak: {event.get('what')} {event.get('name')}")
        kept = "removed afterwards" if event.get("removed") else "still there"
        return [Line(what, MARKS["failed"], kept, indent=1, style=STYLES["failed"])]

    def _note(self, event: Event) -> list[Line]:
        return [Line(_one_line(event["text"]), "·", indent=1)]

    # -- what is under way -------------------------------------------------------------------------------------

    def _under_way(self, event: Event, text: str) -> UnderWay:
        return UnderWay(_one_line(text), float(event["t"]), self.stage, event.get("scenario"))

    def _heading(self, scenario: Scenario) -> list[Line]:
        if scenario.feature == self._feature:
            return []
        self._feature = scenario.feature
        return [Line(scenario.feature, indent=1, bold=True)]

    def _forget_scenario(self) -> None:
        for table in (self.commands, self.waits):
            for key in [key for key, item in table.items() if item.scenario == self.current]:
                del table[key]
        self.current = None

    def _drop_scenario(self, now: float) -> list[Line]:
        """Lines for the scenario that its process left in the middle."""
        if self.current is None:
            return []
        scenario = self.scenarios[self.current]
        waits = [wait for wait in self.waits.values() if wait.scenario == self.current]
        for step in scenario.steps:
            if step.outcome == "under way":
                step.outcome, step.seconds = "interrupted", now - (step.started or now)
                step.error = {"expected": waits[-1].text, "seen": waits[-1].seen} if waits else {}
        scenario.outcome = "interrupted"
        self._forget_scenario()
        return _scenario_lines(scenario, now - scenario.started, None)

    def finish(self, now: float) -> list[Line]:
        """Lines for what is still under way when nobody writes any more."""
        lines = self._drop_scenario(now)
        tasks = [_ended(task.text, "interrupted", now - task.started, indent=1) for task in self.tasks.values()]
        stages = [_ended(stage, "interrupted", now - began, bold=True) for stage, began in self.stages.items()]
        for table in (self.tasks, self.commands, self.waits, self.stages):
            table.clear()
        return lines + tasks + stages[::-1]

    def counted(self) -> str:
        """`14 passed, 1 failed, 3 not run`."""
        counts = Counter(scenario.outcome for scenario in self.scenarios.values())
        order = ("passed", "failed", "error", "interrupted", "not_run")
        return ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in order if counts[name])

    def live(self, now: float) -> list[Line]:
        """The region that lives: stage, tasks, scenario with its steps, commands, waits."""
        if not self.stages and self.current is None:
            return []
        spinner = SPINNER[int(now / POLL) % len(SPINNER)]
        lines = [self._head(now)]
        lines += [Line(task.text, spinner, _ticking(now - task.started), 1, "cyan") for task in self.tasks.values()]
        if self.current is not None:
            lines += _steps(self.scenarios[self.current], now, spinner)
        depth = 3 if self.current is not None else 2
        for command in list(self.commands.values())[-3:]:
            lines.append(Line(command.text, "$", _ticking(now - command.started), depth))
        for wait in list(self.waits.values())[-3:]:
            lines += _wait(wait, now, depth)
        return lines

    def _head(self, now: float) -> Line:
        over = [s for s in self.scenarios.values() if s.outcome not in ("not_run", "under way")]
        bad = sum(scenario.outcome in ("failed", "error", "interrupted") for scenario in over)
        progress = [f"{len(over)} of {len(self.scenarios)}"] if self.current is not None else []
        progress += [f"{bad} failed"] if bad else []
        began = self.started if self.started is not None else next(iter(self.stages.values()), now)
        name = self.stage + (f" · {self.run}" if self.run else "")
        return Line(name, right=" · ".join([*progress, _ticking(now - began)]), bold=True)

    def reminders(self, now: float) -> list[Line]:
        """One line for each step and task that has run for another REMIND seconds."""
        lines = []
        for key, text, began, depth in self._slow():
            number = int((now - began) // REMIND)
            if number > self._reminded.get(key, 0):
                self._reminded[key] = number
                why = self._why(text, self.current if depth == 3 else None, now)
                lines.append(Line(f"{text}: {_ticking(now - began)}, {why}", "…", indent=depth))
        return lines

    def _slow(self) -> list[tuple[object, str, float, int]]:
        """Tasks and steps under way: key, text, start, depth."""
        slow: list[tuple[object, str, float, int]] = [
            ((name, task.started), task.text, task.started, 1) for name, task in self.tasks.items()
        ]
        steps = self.scenarios[self.current].steps if self.current is not None else []
        for index, step in enumerate(steps):
            if step.outcome == "under way" and step.started is not None:
                slow.append(((self.current, index), step.text, step.started, 3))
        return slow

    def _why(self, text: str, scenario: str | None, now: float) -> str:
        """What the step waits for, or the only task (with several, nobody knows whose command it is)."""
        waits = [wait for wait in self.waits.values() if scenario in (None, wait.scenario)]
        if scenario is None and (len(self.tasks) > 1 or not (waits or self.commands)):
            return "at work"
        if waits:
            wait = waits[-1]
            limit = f"{_ticking(now - wait.started)} of {_ticking(wait.within)}"
            return f"waiting: {wait.text} ({limit}), last seen: {wait.seen}"
        commands = [command for command in self.commands.values() if scenario in (None, command.scenario)]
        if commands and commands[-1].text in text:
            return "still running"
        return f"running `{commands[-1].text}`" if commands else "no command and no wait under way"


def _one_line(value: object) -> str:
    return " ".join(clean(value).split())


def _ticking(seconds: float) -> str:
    return took(int(max(seconds, 0)), digits=0)


def _ended(text: str, outcome: str, seconds: float | None, **layout: Any) -> Line:
    """A finished thing; what did not simply pass says so in words, too."""
    said = "" if outcome in ("passed", "done") else outcome.replace("_", " ")
    right = ", ".join(filter(None, (said, "" if outcome in ("not_run", "cached") else took(seconds))))
    return Line(text, MARKS.get(outcome, "·"), right, style=STYLES.get(outcome, "yellow"), **layout)


def _fault(error: object, indent: int) -> list[Line]:
    """What was expected, last seen and where, and the command to paste."""
    if not error:
        return []
    said = error if isinstance(error, dict) else {"message": error}
    message = "" if said.get("expected") and said.get("seen") else "message"
    named = {"layer": "layer", message: "", "expected": "expected", "seen": "last seen", "where": "where"}
    lines = [
        Line(f"{label:<10} {_one_line(said[name])}" if label else _one_line(said[name]), indent=indent)
        for name, label in named.items()
        if said.get(name)
    ]
    paste = clean(said.get("paste")).strip()
    return lines + ([Line(paste, "$", indent=indent, verbatim=True)] if paste else [])


def _scenario_lines(scenario: Scenario, seconds: float | None, reason: object) -> list[Line]:
    lines = [_ended(scenario.title, scenario.outcome, seconds, indent=2)]
    at = next((step for step in scenario.steps if step.outcome in ("failed", "interrupted")), None)
    if at is not None:
        return [*lines, Line(at.text, indent=3, bold=True), *_fault(at.error, indent=4)]
    if reason and scenario.outcome != "passed":
        lines.append(Line(_one_line(reason), indent=3))
    return lines


def _steps(scenario: Scenario, now: float, spinner: str) -> list[Line]:
    """The steps around the one under way, with marks."""
    lines = [Line(f"{scenario.feature} › {scenario.title}", indent=1)]
    at = sum(step.outcome not in ("not_run", "under way") for step in scenario.steps)
    for step in scenario.steps[max(at - 4, 0) : at + 4]:
        if step.outcome == "under way":
            lines.append(Line(step.text, spinner, _ticking(now - (step.started or now)), 2, "cyan", bold=True))
        elif step.outcome == "not_run":
            lines.append(Line(step.text, "·", indent=2))
        else:
            style = STYLES.get(step.outcome, "")
            lines.append(Line(step.text, MARKS.get(step.outcome, "·"), took(step.seconds), 2, style))
    more = len(scenario.steps) - at - 4
    return lines + ([Line(f"{more} more", "…", indent=2)] if more > 0 else [])


def _wait(wait: UnderWay, now: float, depth: int) -> list[Line]:
    late = "yellow" if wait.within and now - wait.started > 0.8 * wait.within else ""
    limit = f"{_ticking(now - wait.started)} of {_ticking(wait.within)}"
    lines = [Line(f"waiting: {wait.text}", "…", limit, depth, late)]
    lines.append(Line(f"last saw {wait.seen}", "", f"for {_ticking(now - wait.seen_at)}", depth + 1))
    return lines + ([Line(f"must then hold for {wait.hold_for:g} s", indent=depth + 1)] if wait.hold_for else [])


class Tail:
    """Reads the log as it grows. A half-written last line is kept until its end comes, one that is torn is left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def read(self) -> list[Event]:
        """The events since the last call; none while there is no log yet."""
        if self._file is None:
            try:
                self._file = self._path.open("rb")
            except FileNotFoundError:
                return []
        fresh = self._file.read()
        if not fresh:
            return []
        *lines, self._rest = (self._rest + fresh).split(b"\n")
        return [event for event in map(_event, lines) if event is not None]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "kind" in event and "t" in event else None


class Display:
    """Shows a run while it goes on: `start()`, `stop()`, or as a context. A console that goes away ends it quietly."""

    def __init__(self, path: Path, console: Console, clock: Callable[[], float] = time.time) -> None:
        self.board = Board()
        self._tail = Tail(path)
        self._console = console
        self._clock = clock
        self._lively = console.is_terminal and not console.is_dumb_terminal
        self._live: Live | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="display", daemon=True)

    def start(self) -> None:
        if self._lively:
            self._live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
            self._live.start()
        self._thread.start()

    def stop(self) -> None:
        """Shows what the log holds by now, and what was left under way; the region is wiped."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(*GONE):  # the log has everything
            self.tick()
            self._print(self.board.finish(self._clock()))
        with contextlib.suppress(*GONE):
            if self._live is not None:
                self._live.stop()
        self._tail.close()

    def __enter__(self) -> Display:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _follow(self) -> None:
        while not self._stopped.wait(POLL):
            try:
                self.tick()
            except GONE:
                return

    def tick(self) -> None:
        """Reads what is new and shows it. Raises one of GONE when the console is."""
        for event in self._tail.read():
            self._print(self.board.feed(event))
        now = self._clock()
        if self._live is not None:
            lines = self.board.live(now)[: max(self._console.height - 1, 1)]
            self._live.update(Group(*(self._fitted(line) for line in lines)), refresh=True)
        elif not self._lively:
            self._print(self.board.reminders(now))

    def _print(self, lines: list[Line]) -> None:
        for line in lines:
            if line.plain_only and self._lively:
                continue
            text = self._verbatim(line) if line.verbatim else self._wrapped(line)
            self._console.print(text if self._lively else text.plain, soft_wrap=True, **VERBATIM)

    def _text(self, text: str, style: str = "") -> Text:
        return Text(text if self._console.encoding.startswith("utf") else _ascii(text), style, end="")

    def _lead(self, line: Line) -> Text:
        return self._text("  " * line.indent).append_text(self._text(f"{line.mark} " if line.mark else "", line.style))

    def _verbatim(self, line: Line) -> Text:
        return self._lead(line).append_text(self._text(line.text))

    def _wrapped(self, line: Line) -> Text:
        """A line for good: wrapped under its own beginning, seconds at the right (plain: at the end)."""
        text, right = self._lead(line), self._text(f"  {line.right}" if line.right else "", "dim")
        hanging = "\n" + "  " * (line.indent + bool(line.mark))
        aligned = right.cell_len if self._lively else 0
        width = min(self._console.width, WIDEST) if self._lively else self._console.width
        room = max(width - text.cell_len - aligned, 10)
        left = room
        for number, part in enumerate(self._text(line.text, "bold" if line.bold else "").wrap(self._console, room)):
            part.rstrip()
            text.append(hanging if number else "").append_text(part)
            if aligned and number == 0:
                text.append(" " * max(room - part.cell_len, 0)).append_text(right)
            left = room - part.cell_len
        if not aligned and right.plain:
            text.append(hanging if left < right.cell_len else "").append_text(right)
        return text

    def _fitted(self, line: Line) -> Text:
        """A line of the region that lives: cut to the width, seconds at the right."""
        right = self._text(f"  {line.right}" if line.right else "", "dim")
        text = self._lead(line).append_text(self._text(line.text, "bold" if line.bold else ""))
        room = max(min(self._console.width, WIDEST) - right.cell_len, 10)
        text.truncate(room, overflow="ellipsis", pad=True)
        text.append_text(right).end = "\n"
        return text


def _ascii(text: str) -> str:
    return text.translate(ASCII).encode("ascii", "replace").decode()
