"""Looks at the cluster as long as a run lasts, and judges: the same looks serve all who ask what holds."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from harness import files
from harness.errors import PlatformWrong, WaitExpired
from harness.record.log import Recorder, redacted
from harness.rules.finding import FLEET_LAG, RULES, Finding, Subject, asked_for
from harness.rules.judging import Cause, Judgement, causes, judge
from harness.seams.patience import patience
from harness.seams.wait import Clock
from harness.snapshot.data import Snapshot, decode, encode
from harness.snapshot.look import ASK_AGAIN, LOOK_LIMIT, Looker

# Seconds between two looks while something is wrong, at least
EVERY = 0.2
# How often a machine that refuses is tried before the next look
BOOTS = 10
# Seconds for which a look tells what holds now, where something is changed
HOLDS = 2.0
# Seconds that findings have to settle, after a change and in a run that changes nothing
SETTLE = 10.0
# Seconds of the journals that are looked at, at most
JOURNAL = 24 * 3600.0
# Looks that are judged together: those of the last seconds that any rule's sources may lag behind, and the first
KEPT = 40


class RuleBroken(PlatformWrong):
    """Rules that were to hold do not; their cause says what was expected and seen, and where."""

    def __init__(self, what: str, cause: Cause) -> None:
        finding = cause.finding
        self.layer = finding.layer
        super().__init__(
            f"{what}; {finding}",
            expected=finding.expected,
            seen=finding.seen,
            where=str(finding.subject),
            paste=finding.paste,
        )


class Watch:
    """The looks of one run. `looker` gives what takes them, and is asked again when something was changed. Journals are
    looked at from `since` on (seconds since the epoch), and a day at most. `taken` is how many looks were taken
    before, by others."""

    def __init__(
        self,
        looker: Callable[[], Looker],
        recorder: Recorder,
        folder: Path,
        clock: Clock = time,
        since: float = 0.0,
        taken: int = 0,
    ) -> None:
        self._looker = looker
        self._recorder = recorder
        self._folder = folder / "snapshots"
        self._clock = clock
        self._since = max(since, time.time() - JOURNAL)
        self._looks: list[Snapshot] = []
        self._looking: Looker | None = None
        self._number = taken
        # also when something was changed after it
        self._newest: Snapshot | None = None
        self._recorded: set[int] = set()
        # what the newest look was judged as, and by which number and expectations
        self._judged: tuple[tuple[int, frozenset[tuple[str, Subject]]], Judgement] | None = None
        # whether something is changed: each wait then has a limit of its own, and a look of just now; else all share
        self.fresh = False
        # when the first of the looks was taken, and the newest (monotonic seconds)
        self._began = self._looked = 0.0
        self._expected: set[tuple[str, Subject]] = set()
        # causes that somebody makes on purpose: rules, and subjects in words
        self._made: list[tuple[str, str]] = []
        # causes in the record: the last ones, and those before them of what failed and was put back
        self._told: tuple[Cause, ...] = ()
        self._over: tuple[Cause, ...] = ()
        # rules that somebody has asked for by name
        self.chosen: set[str] = set()

    def changed(self) -> None:
        """Something of the cluster is changed now: what was seen before says nothing of what holds after it."""
        self._looks, self._looking = [], None

    @contextmanager
    def expecting(self, *broken: tuple[str, Subject]) -> Iterator[None]:
        """What is broken on purpose, while that lasts, is no finding."""
        self._expected |= set(broken)
        try:
            yield
        finally:
            self._expected -= set(broken)

    @contextmanager
    def making(self, causes: Collection[tuple[str, str]]) -> Iterator[None]:
        """These causes are made on purpose, while that lasts: they are found, and are no answer to what is wrong."""
        made = tuple(causes)  # who gave them may add to theirs
        self._made += made
        try:
            yield
        finally:
            for cause in made:
                self._made.remove(cause)

    def until(self, what: str, rules: Collection[str], within: float) -> None:
        """Looks again until these rules hold. In a run that changes nothing the limit counts from its first look.

        Raises RuleBroken, with what all rules find by then in the record.
        """
        self.chosen |= set(rules)
        self._until(what, rules, within * patience())

    def _until(self, what: str, rules: Collection[str], within: float) -> None:
        with self._waiting(what, within=within, hold_for=0) as wait:
            self._need(rules, fresh=self.fresh)
            asked = self._clock.monotonic()
            ends = (asked if self.fresh else self._began) + within
            # what only a later look can tell has that time, unless it follows from what is told already; what comes and
            # goes has an end too
            settles = max(ends, asked) + SETTLE * patience()
            while (judged := wait.saw(self._judge().of(rules), self._looks[-1])).all:
                if self._clock.monotonic() >= (ends if judged.findings or self._follows(judged) else settles):
                    raise self._broken(f"{what}: not within {within:g} s", judged)
                self._pause()
                self._look(costly=any(RULES[found.rule].costly for found in judged.all))

    @property
    def first(self) -> Snapshot:
        """The first look."""
        if not self._looks:
            self._look(costly=True)
        return self._looks[0]

    @property
    def newest(self) -> Snapshot:
        """The last look since something was changed."""
        return self._looks[-1] if self._looks else self.first

    @property
    def last(self) -> Snapshot:
        """The last look, whatever was changed since; one of just now, where there is none yet."""
        return self._newest or self.anew()

    def anew(self) -> Snapshot:
        """A look of just now, without what is costly."""
        self.changed()
        self._look(costly=False)
        return self._looks[-1]

    def others(self) -> list[str]:
        """The rules that nobody has asked for by name yet, in this run."""
        return [name for name in asked_for() if name not in self.chosen]

    def diagnose(self, within: float = LOOK_LIMIT) -> tuple[Cause, ...]:
        """What is wrong by now, with all that it takes to know it, in the record; a look takes `within` seconds at
        most."""
        self.changed()
        self._look(costly=True, within=within)
        # what only a later look can tell has that time
        ends = self._clock.monotonic() + (FLEET_LAG + 1) * patience()
        while self._judge().unsettled and self._clock.monotonic() < ends:
            self._pause()
            self._look(costly=False, within=within)
        self.record(self._looks[-1])
        every = causes(self._judge().findings, self._looks[-1])
        found = tuple(it for it in every if not self._is_made(it.finding))
        self._tell(found)
        return found

    def settled(self, within: float = SETTLE) -> None:
        """All rules hold, or do so soon. Raises RuleBroken."""
        self._until("all is as it must be", _after_a_change(), within * patience())

    def is_well(self, within: float) -> bool:
        """Whether all rules hold again behind what failed, or do so soon. Why it failed is told already: no other cause
        is, and where all is well that one stays when more is found later."""
        what, rules = "all is as it must be again", _after_a_change()
        with suppress(WaitExpired), self._waiting(what, within=within, hold_for=0) as wait:
            self.changed()
            self._look(costly=False)
            ends = self._looked + within * patience()
            while wait.saw(self._judge().of(rules), self._looks[-1]).all:
                if self._clock.monotonic() >= ends:
                    raise WaitExpired(what, expected="nothing wrong", seen=wait.shown)
                self._pause()
                self._look(costly=False)
            self._over = self._told
            return True
        return False

    def stays(self, seconds: float, within: float) -> None:
        """Looks until all rules have held for so many seconds on end, those too that compare with how these seconds
        began. Raises RuleBroken."""
        what, rules = "all stays as it must be", [name for name in asked_for() if not RULES[name].costly]
        with self._waiting(what, within=within, hold_for=seconds) as wait:
            self._need(rules, fresh=True)
            ends = self._clock.monotonic() + within * patience()
            since = self._looked
            while (judged := wait.saw(self._judge().of(rules), self._looks[-1])).all or self._looked - since < seconds:
                if self._clock.monotonic() >= ends and judged.all:
                    raise self._broken(f"{what}: not within {within:g} s", judged)
                self._pause()
                if judged.all:
                    self.changed()
                self._look(costly=False)
                since = self._looked if judged.all else since

    def names(self, what: str, expected: Collection[tuple[str, str]], within: float) -> None:
        """Looks until these causes are named (rule, and subject in words), and no other, nor may a later look name one:
        all that is not settled follows from them. Raises WaitExpired.

        What shows at the end of the limit has its time to settle; what comes and goes after it does not matter.
        """
        rules = [name for name in asked_for() if not RULES[name].compares]
        with self._waiting(what, within=within, hold_for=0) as wait:
            self.changed()
            self._look(costly=True)
            ends, last = self._clock.monotonic() + within * patience(), math.inf
            while True:
                judged = wait.saw(self._judge().of(rules), self._looks[-1])
                found = causes(judged.findings, self._looks[-1])
                is_over = self._clock.monotonic() >= ends
                last = min(last, self._looks[-1].asked) if is_over else last
                if _named(found) == set(expected):
                    shown = [it for it in causes(judged.all, self._looks[-1]) if it.finding.first_seen <= last]
                    if _named(shown) <= set(expected):
                        return
                elif is_over:
                    named = "; ".join(str(it.finding) for it in found) or "nothing"
                    wanted = ", ".join(subject for _, subject in expected)
                    raise WaitExpired(f"{what}: named is {named}", expected=wanted, seen=named)
                self._pause()
                self._look(costly=False)

    @contextmanager
    def _waiting(self, what: str, within: float, hold_for: float) -> Iterator[_Wait]:
        """A wait in the record; of its snapshots the first that shows something wrong, and the last."""
        name = self._recorder.new_id("wait")
        self._recorder.emit("wait.started", id=name, what=what, within=within, hold_for=hold_for)
        started, wait, outcome = self._clock.monotonic(), _Wait(self, name), "failed"
        try:
            yield wait
            outcome = "reached"
        except (RuleBroken, WaitExpired):
            outcome = "expired"
            raise
        finally:
            if wait.first and self._looks[-1].number != wait.first:
                self.record(self._looks[-1])
            seconds = round(self._clock.monotonic() - started, 3)
            self._recorder.emit("wait.ended", id=name, outcome=outcome, value=wait.shown, seconds=seconds)

    def _need(self, rules: Collection[str], *, fresh: bool) -> None:
        """A look that these rules can be judged by."""
        costly = any(RULES[name].costly for name in rules)
        if self._looks and fresh and self._clock.monotonic() - self._looked < HOLDS:
            fresh = False
        if fresh or not self._looks:
            self.changed()
            self._look(costly=costly or not self.fresh)
        elif costly and self._looks[-1].outside.walks is None:
            self._look(costly=True)

    def _pause(self) -> None:
        """Looks take half of a machine's time at most: one that is busy enough is not made busier by being watched.
        While one boots, its sshd refuses at once: a look that could not see it would only make its boot longer."""
        assert self._looking is not None
        look = self._looks[-1]
        refused = [name for name, machine in look.machines.items() if machine.silent and machine.seconds < ASK_AGAIN]
        if not refused:
            # until the last of those that are asked in turn had told all; what was only waited for, such as a silent
            # machine, or the way to one, made nobody busy
            answering = look.answering.values()
            self._clock.sleep(max([EVERY, *(machine.asked - look.asked + machine.worked for machine in answering)]))
        for _ in range(BOOTS if refused else 0):
            self._clock.sleep(EVERY / 2)
            if self._looking.listens(refused):
                return

    def _look(self, *, costly: bool, within: float = LOOK_LIMIT) -> None:
        before = self._looks[-1] if self._looks else None
        self._looked = self._clock.monotonic()
        if not self._looks:
            self._began = self._looked
        if self._looking is None:
            self._looking = self._looker()
        self._number += 1
        look = self._looking.look(self._number, self._since, before, costly=costly, within=within)
        self._looks.append(look)
        self._newest = look
        del self._looks[1:-KEPT]
        seconds = look.seconds
        silent = [name for name, machine in look.machines.items() if machine.silent]
        self._recorder.emit(
            "look",
            number=look.number,
            seconds=seconds,
            bytes=len(encode(look)),
            silent=silent,
            unseen=look.unseen,
        )

    def _judge(self) -> Judgement:
        key = (self._looks[-1].number, frozenset(self._expected))
        if self._judged is None or self._judged[0] != key:
            self._judged = key, judge(self._looks, self._expected)
        return self._judged[1]

    def end(self) -> None:
        """Puts the last look into the record, whatever it shows; nothing, where there was none."""
        if self._newest is not None:
            self.record(self._newest)

    def record(self, look: Snapshot) -> None:
        """Writes a snapshot into the run's folder, masked; once."""
        if look.number in self._recorded:
            return
        self._recorded.add(look.number)
        self._folder.mkdir(exist_ok=True)
        path = snapshot_file(self._folder.parent, look.number)
        masked = redacted(msgspec.to_builtins(look), self._recorder.redact)
        files.put(path, json.dumps(masked, ensure_ascii=False), sync=False)
        self._recorder.emit("artefact", path=str(path), about=f"look {look.number}")

    def saw(self, wait: str, text: str) -> None:
        self._recorder.emit("wait.seen", id=wait, value=text)

    def _follows(self, judged: Judgement) -> bool:
        """Whether all that is not settled follows from findings that are. Where something is changed a cause may be
        made on purpose, and what follows from it has its time."""
        if self.fresh:
            return False
        every = self._judge()
        settled, open_ = {it.key for it in every.findings}, {it.key for it in judged.unsettled}
        found = causes(every.all, self._looks[-1])
        return open_ <= {it.key for cause in found if cause.finding.key in settled for it in cause.consequences}

    def _tell(self, found: Collection[Cause]) -> None:
        before = {it.finding.key for it in self._over}
        self._told = (*self._over, *(it for it in found if it.finding.key not in before))
        emit_causes(self._recorder, self._told, self._looks[-1].number)

    def _broken(self, what: str, judged: Judgement) -> RuleBroken:
        asked = {finding.key for finding in judged.findings or judged.unsettled}
        every = self._judge().of([name for name, rule in RULES.items() if not (self.fresh and rule.compares)])
        every = every if asked <= {finding.key for finding in every.all} else judged
        found = causes(every.findings if judged.findings else every.all, self._looks[-1])
        # what follows from what was broken on purpose, and was asked for, was to hold all the same
        found = tuple(
            cause
            for it in found
            for cause in (
                [it] if not self._is_made(it.finding) else _alone(found for found in it.all if found.key in asked)
            )
        )
        self._tell(found)
        return RuleBroken(what, next(cause for cause in found if asked & {it.key for it in cause.all}))

    def _is_made(self, finding: Finding) -> bool:
        """Whether somebody broke it on purpose: that is no answer to what is wrong."""
        return (finding.rule, str(finding.subject)) in self._made


def _alone(findings: Iterable[Finding]) -> list[Cause]:
    return [Cause(finding) for finding in findings]


def _named(found: Collection[Cause]) -> set[tuple[str, str]]:
    """Causes as a person names them: rule, and subject in words."""
    return {(it.finding.rule, str(it.finding.subject)) for it in found}


def _after_a_change() -> list[str]:
    """All rules but costly ones, and those that compare: what was changed on purpose may have begun again, or elected
    another leader."""
    return [name for name in asked_for() if not RULES[name].costly and not RULES[name].compares]


def snapshot_file(folder: Path, number: int) -> Path:
    """Where a run's folder has a look that is recorded."""
    return folder / "snapshots" / f"{number:04}.json"


def recorded(folder: Path, number: int) -> Snapshot | str:
    """A look from a run's folder; why it cannot be had, where it cannot."""
    try:
        return decode(snapshot_file(folder, number).read_bytes())
    except FileNotFoundError:
        return "its snapshot is not on record"
    except (OSError, ValueError) as refused:
        return f"its snapshot cannot be read ({refused})"


class _Wait:
    """One wait: what it last saw, and the number of its first look that showed something wrong (0: none)."""

    def __init__(self, watch: Watch, name: str) -> None:
        self._watch, self._name = watch, name
        self.shown, self.first = "", 0

    def saw(self, judged: Judgement, look: Snapshot) -> Judgement:
        text = "; ".join(map(str, judged.all[:3])) or "nothing wrong"
        if text != self.shown:
            self.shown = text
            self._watch.saw(self._name, text)
        if judged.all and not self.first:
            self.first = look.number
            self._watch.record(look)
        return judged


def emit_causes(recorder: Recorder, found: Collection[Cause], look: int) -> None:
    """Puts causes into the record, in their order; the last that are there count."""
    recorder.emit(
        "causes",
        look=look,
        causes=[
            {"finding": document_of(cause.finding), "consequences": list(map(document_of, cause.consequences))}
            for cause in found
        ],
    )


def document_of(finding: Finding) -> dict[str, Any]:
    """A finding as the record has it."""
    fields = msgspec.to_builtins(msgspec.structs.replace(finding, follows=None, leads=None, untold=False, absent=()))
    return {"since": None, "paste": "", "repair": "", **fields, "about": str(finding.subject)}
