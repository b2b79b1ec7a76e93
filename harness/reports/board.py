"""The state of the live display: events of the log go in, lines for good come out, what is under way can be asked.

It reads nothing, prints nothing and has no clock: times are the log's, in seconds since the epoch.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable
from typing import Any

from harness.reports.lines import (
    Line,
    Scenario,
    Step,
    UnderWay,
    ended,
    fault,
    of_limit,
    of_scenario,
    of_steps,
    of_wait,
    ticking,
)
from harness.text import LEFT_OUT, MARKS, SLOW, counted, one_line

Event = dict[str, Any]

REMIND = 10  # seconds between two plain lines about the same thing
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
SPIN = 0.1  # seconds for one of the spinner's characters


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
            take = getattr(self, "_on_" + event["kind"].replace(".", "_"), None)
            return take(event) or [] if take else []
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            return []

    @property
    def stage(self) -> str:
        return next(reversed(self.stages), "")

    # -- events: one method for each kind that is shown -----------------------------------------------------------

    def _on_run_started(self, event: Event) -> None:
        self.run = " · ".join(one_line(event[name]) for name in ("target", "run_id") if event.get(name))
        self.started = float(event["t"])

    def _on_stage_started(self, event: Event) -> list[Line]:
        lines = self._drop_scenario(event["t"])
        self.stages[one_line(event["stage"])] = float(event["t"])
        return [*lines, Line(self.stage, bold=True)]

    def _on_stage_ended(self, event: Event) -> list[Line]:
        stage, now = one_line(event["stage"]), event["t"]
        lines = self._drop_scenario(now)
        for table in (self.commands, self.waits):
            _take(table, lambda item: item.stage == stage)
        for task in _take(self.tasks, lambda item: item.stage == stage):
            lines.append(ended(task.text, "interrupted", now - task.started, indent=1))
        began = self.stages.pop(stage, now)
        seconds = event.get("seconds", now - began)
        counts = f": {self.counted()}" if stage == "runbook" and self.scenarios else ""
        outcome = event.get("outcome", "ended")
        if (
            counts
            and outcome == "passed"
            and {"failed", "error"} & {scenario.outcome for scenario in self.scenarios.values()}
        ):
            outcome = "failed"  # the stage itself went through; what it is for did not
        lines.append(ended(stage + counts, outcome, seconds, bold=True))
        return lines + fault(event.get("error"), indent=1)

    def _on_task_started(self, event: Event) -> None:
        self.tasks[event["task"]] = self._under_way(event, event["task"])

    def _on_task_ended(self, event: Event) -> list[Line]:
        item = self.tasks.pop(event["task"], None)
        seconds = event.get("seconds", event["t"] - item.started if item else None)
        line = ended(one_line(event["task"]), event.get("outcome", "done"), seconds, indent=1)
        return [line, *fault(event.get("error"), indent=2)]

    def _on_scenario_planned(self, event: Event) -> None:
        steps = [Step(one_line(f"{step.get('keyword', '')} {step['text']}")) for step in event["steps"]]
        feature = event.get("feature_title") or event.get("feature", "")
        self.scenarios[event["id"]] = Scenario(one_line(feature), one_line(event["title"]), steps)

    def _on_scenario_started(self, event: Event) -> list[Line]:
        lines = self._drop_scenario(event["t"])
        scenario = self.scenarios[event["id"]]
        scenario.outcome, scenario.started = "under way", float(event["t"])
        self.current = event["id"]
        return [*lines, *self._heading(scenario), Line(scenario.title, indent=2, plain_only=True)]

    def _on_scenario_ended(self, event: Event) -> list[Line]:
        scenario = self.scenarios[event["id"]]
        began = scenario.started if scenario.outcome == "under way" else event["t"]
        scenario.outcome = event["outcome"]
        if event["id"] == self.current:
            self._forget_scenario()
        if event.get("reason") in (LEFT_OUT, SLOW):
            return []  # they are counted
        seconds = event.get("seconds", event["t"] - began)
        return self._heading(scenario) + of_scenario(scenario, seconds, event.get("reason"))

    def _on_step_started(self, event: Event) -> None:
        step = self.scenarios[event["id"]].steps[event["index"]]
        step.outcome, step.started = "under way", float(event["t"])

    def _on_step_ended(self, event: Event) -> list[Line]:
        step = self.scenarios[event["id"]].steps[event["index"]]
        step.outcome, step.error = event["outcome"], event.get("error") or {}
        step.seconds = event.get("seconds", event["t"] - (step.started or event["t"]))
        return [ended(step.text, step.outcome, step.seconds, indent=3, plain_only=True)]

    def _on_command_started(self, event: Event) -> None:
        self.commands[event["id"]] = self._under_way(event, event.get("line") or shlex.join(event["argv"]))

    def _on_command_ended(self, event: Event) -> None:
        self.commands.pop(event["id"], None)

    def _on_wait_started(self, event: Event) -> None:
        wait = self._under_way(event, event["what"])
        wait.within, wait.hold_for = float(event.get("within") or 0), float(event.get("hold_for") or 0)
        wait.seen_at = wait.started
        self.waits[event["id"]] = wait

    def _on_wait_seen(self, event: Event) -> None:
        wait = self.waits[event["id"]]
        wait.seen, wait.seen_at = one_line(event["value"]), float(event["t"])

    def _on_wait_ended(self, event: Event) -> None:
        self.waits.pop(event["id"], None)

    def _on_leak(self, event: Event) -> list[Line]:
        what = one_line(f"leak: {event.get('what')} {event.get('name')}")
        kept = "removed afterwards" if event.get("removed") else "still there"
        return [Line(what, MARKS["failed"], kept, indent=1, style="bold red")]

    def _on_note(self, event: Event) -> list[Line]:
        return [Line(one_line(event["text"]), "·", indent=1)]

    # -- what was left under way ----------------------------------------------------------------------------------

    def _under_way(self, event: Event, text: str) -> UnderWay:
        return UnderWay(one_line(text), float(event["t"]), self.stage, event.get("scenario"))

    def _heading(self, scenario: Scenario) -> list[Line]:
        """The feature's title, where the scenario is the first of it."""
        if scenario.feature == self._feature:
            return []
        self._feature = scenario.feature
        return [Line(scenario.feature, indent=1, bold=True)]

    def _forget_scenario(self) -> None:
        for table in (self.commands, self.waits):
            _take(table, lambda item: item.scenario == self.current)
        self.current = None

    def _drop_scenario(self, now: float) -> list[Line]:
        """Lines for the scenario that its process left in the middle."""
        if self.current is None:
            return []
        scenario = self.scenarios[self.current]
        waits = self._waits(self.current)
        for step in scenario.steps:
            if step.outcome == "under way":
                step.outcome, step.seconds = "interrupted", now - (step.started or now)
                step.error = {"expected": waits[-1].text, "seen": waits[-1].seen} if waits else {}
        scenario.outcome = "interrupted"
        self._forget_scenario()
        return of_scenario(scenario, now - scenario.started, None)

    def finish(self, now: float) -> list[Line]:
        """Lines for what is still under way when nobody writes any more."""
        lines = self._drop_scenario(now)
        tasks = [ended(task.text, "interrupted", now - task.started, indent=1) for task in self.tasks.values()]
        stages = [ended(stage, "interrupted", now - began, bold=True) for stage, began in self.stages.items()]
        for table in (self.tasks, self.commands, self.waits, self.stages):
            table.clear()
        return lines + tasks + stages[::-1]

    def counted(self) -> str:
        """`14 passed, 1 failed, 3 not run`."""
        return counted(Counter(scenario.outcome for scenario in self.scenarios.values()))

    # -- what is under way ----------------------------------------------------------------------------------------

    def live(self, now: float) -> list[Line]:
        """The region that lives: stage, tasks, scenario with its steps, commands, waits."""
        if not self.stages and self.current is None:
            return []
        spinner = SPINNER[int(now / SPIN) % len(SPINNER)]
        lines = [self._head(now)]
        lines += [Line(task.text, spinner, ticking(now - task.started), 1, "cyan") for task in self.tasks.values()]
        if self.current is not None:
            lines += of_steps(self.scenarios[self.current], now, spinner)
        depth = 3 if self.current is not None else 2
        for command in list(self.commands.values())[-3:]:
            lines.append(Line(command.text, "$", ticking(now - command.started), depth))
        for wait in list(self.waits.values())[-3:]:
            lines += of_wait(wait, now, depth)
        return lines

    def _head(self, now: float) -> Line:
        over = [s for s in self.scenarios.values() if s.outcome not in ("not_run", "under way")]
        bad = sum(scenario.outcome in ("failed", "error", "interrupted") for scenario in over)
        progress = [f"{len(over)} of {len(self.scenarios)}"] if self.current is not None else []
        progress += [f"{bad} failed"] if bad else []
        began = self.started if self.started is not None else next(iter(self.stages.values()), now)
        name = self.stage + (f" · {self.run}" if self.run else "")
        return Line(name, right=" · ".join([*progress, ticking(now - began)]), bold=True)

    def reminders(self, now: float) -> list[Line]:
        """One line for each task and step that has run for another REMIND seconds."""
        lines = []
        for name, task in self.tasks.items():
            if self._is_due((name, task.started), now - task.started):
                why = self._why_task(task.text, now)
                lines.append(Line(f"{task.text}: {ticking(now - task.started)}, {why}", "…", indent=1))
        for index, step in enumerate(self.scenarios[self.current].steps if self.current is not None else ()):
            if step.started is None or step.outcome != "under way":
                continue
            if self._is_due((self.current, index), now - step.started):
                why = self._why_step(step.text, now)
                lines.append(Line(f"{step.text}: {ticking(now - step.started)}, {why}", "…", indent=3))
        return lines

    def _is_due(self, key: object, seconds: float) -> bool:
        number = int(seconds // REMIND)
        due = number > self._reminded.get(key, 0)
        if due:
            self._reminded[key] = number
        return due

    def _why_task(self, text: str, now: float) -> str:
        """What the only task is at; with several, nobody knows whose command or wait it is."""
        alone = len(self.tasks) == 1 and (self.waits or self.commands)
        return _why(text, list(self.waits.values()), list(self.commands.values()), now) if alone else "at work"

    def _why_step(self, text: str, now: float) -> str:
        commands = [command for command in self.commands.values() if command.scenario == self.current]
        return _why(text, self._waits(self.current), commands, now)

    def _waits(self, scenario: str | None) -> list[UnderWay]:
        return [wait for wait in self.waits.values() if wait.scenario == scenario]


def _why(text: str, waits: list[UnderWay], commands: list[UnderWay], now: float) -> str:
    """Why it takes long: the last wait, else the last command, which is not repeated when `text` names it."""
    if waits:
        return f"waiting: {waits[-1].text} ({of_limit(waits[-1], now)}), last seen: {waits[-1].seen}"
    if not commands:
        return "no command and no wait under way"
    return "still running" if commands[-1].text in text else f"running `{commands[-1].text}`"


def _take(table: dict[str, UnderWay], belongs: Callable[[UnderWay], bool]) -> list[UnderWay]:
    """Takes out of a table what belongs to something that is over."""
    keys = [key for key, item in table.items() if belongs(item)]
    return [table.pop(key) for key in keys]
