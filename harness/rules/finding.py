"""Rules and findings: what a rule is, what it finds, and the table of all rules."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from harness.snapshot.data import PARTS, Machine, Snapshot, Struct, Unit

# Everything that stands on the subject, in `explains`
ALL = "*"
# fleet publishes states 1 to 5 s late (its agents reconcile every 5 s, and write through etcd)
FLEET_LAG = 5.0
# Ambassadors follow etcd within 2 s, and check a server every half second
AMBASSADOR_LAG = 2.0
# Between a unit's process and its container: one look asks systemd before Docker
DOCKER_LAG = 1.0
# Layers from the ground up. The first is what the platform stands on, and none of its own
LAYERS = ("environment", "config", "toolchain", "provision", "bootstrap", "schedule", "unit", "discovery", "content",
          "entry")  # fmt: skip


class Subject(NamedTuple):
    """A thing that can be wrong: `etcd on coreos-2`, `unit jpblog.service on coreos-0`, `name example.com`."""

    kind: str
    name: str = ""
    machine: str = ""

    def __str__(self) -> str:
        what = " ".join(filter(None, (self.kind, self.name)))
        if not self.machine:
            return what
        if self.kind == "machine":
            return f"machine {self.machine}"
        return f"{what} {'through' if self.kind == 'site' else 'on'} {self.machine}"


@dataclass(frozen=True)
class Wrong:
    """One thing that a rule finds wrong: what was expected, what was seen, since when (seconds since the epoch, by our
    clock), and the command that shows it.

    It can follow from whatever its subject stands on, where that does not answer or comes late. What is wrong in
    another way (other bytes, a unit that was stopped, a key that is refused) `follows` from findings of these rules
    only: `RULE`, `RULE KIND` of one kind of its subjects, `RULE otherwise` of what is wrong in another way itself; from
    none, where that is empty. It `leads` to findings of these rules, where not to all that its rule explains. What is
    `untold` was not seen, for its machine does not tell: it may be well, and leads to nothing that was seen. `absent`
    are the parts that this leaves unknown (see Rule).
    """

    subject: Subject
    expected: str
    seen: str
    since: float | None = None
    paste: str = ""
    follows: Collection[str] | None = None
    leads: Collection[str] | None = None
    untold: bool = False
    absent: tuple[str, ...] = ()


class Finding(Struct, frozen=True, omit_defaults=True):
    """What a rule found, as record and programs know it. `first_seen` is the moment of the look that first showed it;
    `since` is what the thing itself says. `repair` is the line that mends it, or the section of the README that says
    how (rules/repairs.py)."""

    rule: str
    layer: str
    subject: Subject
    expected: str
    seen: str
    first_seen: float
    since: float | None = None
    paste: str = ""
    repair: str = ""
    # as in Wrong; not recorded
    follows: Collection[str] | None = None
    leads: Collection[str] | None = None
    untold: bool = False
    absent: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, Subject]:
        return self.rule, self.subject

    def __str__(self) -> str:
        return f"{self.subject}: expected {self.expected}, seen {self.seen}"


Found = Iterable[Wrong]


@dataclass(frozen=True)
class Rule:
    """What must hold. `name` is stable: people and programs know it.

    It is judged by the parts of the snapshot that it `needs`: those of PARTS, of collect.sh, and of what is asked from
    outside. What leaves one of them unknown counts for it (see Judgement.of).

    It `explains` findings of these other rules whose subjects stand on its own (ALL: of any rule that comes later), and
    that can follow from it (see Wrong).
    `lag` is how many seconds late its sources are: what it finds counts when two looks that are further apart agree.
    A rule that `compares` is given the first look and the newest. What a `costly` one needs is not in every look. One
    that `excuses` is given all looks: what it finds is no fault by itself, and counts where it explains all others.
    """

    name: str
    layer: str
    claim: str
    finds: Callable[..., Found]
    needs: Collection[str]
    explains: Collection[str]
    lag: float
    compares: bool
    costly: bool
    excuses: bool


RULES: dict[str, Rule] = {}


def rule(
    layer: str,
    claim: str,
    *,
    needs: Collection[str],
    explains: Collection[str] = (),
    lag: float = 0.0,
    compares: bool = False,
    costly: bool = False,
    excuses: bool = False,
) -> Callable[[Callable[..., Found]], Callable[..., Found]]:
    """Puts a function into the table of rules, in its order: what can explain is defined before what it explains."""

    def add(finds: Callable[..., Found]) -> Callable[..., Found]:
        name = finds.__name__.replace("_", "-")
        RULES[name] = Rule(name, layer, claim, finds, needs, explains, lag, compares, costly, excuses)
        return finds

    return add


# -- for the rules -----------------------------------------------------------------------------------------------------


def on(machine: str, command: str) -> str:
    """A command to paste that is run on a machine, in the operator's shell (step 4 makes the ssh_config)."""
    return f"ssh -F ssh_config {machine} {shlex.quote(command)}"


def asked_for() -> list[str]:
    """The rules that somebody may ask whether they hold: all but excuses."""
    return [name for name, rule in RULES.items() if not rule.excuses]


def answering(now: Snapshot) -> Iterator[tuple[str, Machine]]:
    """The machines that answered; of the others nothing is known but that they are silent."""
    yield from now.answering.items()


def unanswered(now: Snapshot, part: str, *subjects: Subject) -> Found:
    """A part of the snapshot that was asked for, and never answered: nothing that needs it is known of its subjects."""
    if part in now.unanswered:
        seen = f"asked, and no answer in {now.seconds:.0f} s"
        for subject in subjects:
            yield Wrong(subject, f"an answer to what is asked: {PARTS[part]}", seen, absent=(part,))


def described(unit: Unit | None) -> str:
    """What systemd says of a unit, in a few words."""
    if unit is None:
        return "systemd does not know it"
    ended = ""
    if unit.exit_status and not unit.runs:
        ended = f", {'killed by signal' if unit.exit_code in (2, 3) else 'exit status'} {unit.exit_status}"
    result = "" if unit.result in ("success", "exit-code", "signal") else f", {unit.result}"
    return f"systemd says {unit.active} ({unit.sub}){result}{ended}"


def ended_for_good(unit: Unit | None) -> bool:
    """Whether systemd leaves a unit as it is: somebody stopped it, or it was given up. One that was never started has
    not ended, and one that failed for want of time may come yet."""
    if unit is None or unit.load != "loaded" or unit.since is None:
        return False
    return unit.active == "inactive" or (unit.active == "failed" and unit.result != "timeout")


def since(unit: Unit | None, machine: Machine) -> float | None:
    """Since when a unit is as it is, by our clock."""
    return None if unit is None or unit.since is None else unit.since - machine.clock_ahead


def most_common(values: Iterable[str]) -> str:
    """The value that most have; of several the first in order, so that every look says the same."""
    listed = sorted(values)
    return max(listed, key=lambda value: (listed.count(value), [-ord(c) for c in value])) if listed else ""
