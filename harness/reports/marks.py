"""What a drawing says of the things in it: whether they run, and whether they are wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Item = dict[str, Any]
# What can be wrong, as a finding of the record names it: kind, name, machine
Subject = tuple[str, str, str]
# What is wrong, and what follows from that
CAUSE, FOLLOWS = "cause", "follows"


class Marks:
    """Which subjects are causes, and which follow from one. `causes` are those of the document."""

    def __init__(self, causes: Sequence[Item]) -> None:
        self.findings = [finding for cause in causes for finding in (cause["finding"], *cause["consequences"])]
        self._of = {subject_of(finding): FOLLOWS for cause in causes for finding in cause["consequences"]}
        self._of |= {subject_of(cause["finding"]): CAUSE for cause in causes}

    @property
    def subjects(self) -> list[Subject]:
        return [subject_of(finding) for finding in self.findings]

    def of(self, *subjects: Subject) -> str:
        """The mark of a thing that several subjects are: that of the worst."""
        marks = {self._of.get(subject, "") for subject in subjects}
        return next((mark for mark in (CAUSE, FOLLOWS) if mark in marks), "")

    def left(self, machine: str, shown: Iterable[Subject]) -> list[Thing]:
        """Of a machine ("": of none) what is marked and not among the subjects that are shown, each once."""
        told = {("machine", "", machine), *shown}
        things: dict[Subject, Thing] = {}
        for finding in self.findings:
            subject = subject_of(finding)
            if subject[2] == machine and subject not in told and subject not in things:
                name = " ".join(filter(None, subject[:2]))
                things[subject] = Thing(name, finding["seen"], False, self.of(subject))
        return list(things.values())


def subject_of(finding: Item) -> Subject:
    kind, name, machine = finding["subject"]
    return kind, name, machine


def of_unit(unit: str, machine: str) -> tuple[Subject, ...]:
    """What can be wrong with a unit on a machine: it, its container, and what these do for others."""
    name = unit.removesuffix(".service")
    kinds: list[Subject] = [("unit", unit, machine), ("container", name.replace("@", "-"), machine)]
    if name == "entry":
        kinds.append(("entry point", "", machine))
    if name.endswith("-dynamic-amb"):
        kinds.append(("ambassador of", name.removesuffix("-dynamic-amb"), machine))
    if "-docker-reg" in name:
        kinds.append(("registration", name.partition("-docker-reg")[0], machine))
    return tuple(kinds)


@dataclass(frozen=True)
class Thing:
    """Something that is drawn: its name, what there is to say of it, whether it runs, and its mark. A `special` one is
    not on every machine."""

    name: str
    says: str
    on: bool
    mark: str = ""
    special: bool = False

    @property
    def glyph(self) -> str:
        return self.mark or ("on" if self.on else "off")

    @property
    def words(self) -> str:
        return f"{self.name} {self.says}".strip()
