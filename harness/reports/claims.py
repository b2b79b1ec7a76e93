"""The claims of the features, each with the evidence that the newest run on record gives of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.reports.runbook import Block, Feature, Scenario, Section

Item = dict[str, Any]

# States of a claim, the worst first. CHANGED: it was proven, but with other steps than it has now.
FAILED, ERROR = "failed", "ended in an error"
CHANGED, NEVER, PROVEN = "changed since", "never run", "proven"
STATES = (FAILED, ERROR, CHANGED, NEVER, PROVEN)
COUNTED = (PROVEN, FAILED, ERROR, CHANGED, NEVER)
# Outcomes that are evidence. NOT RUN and INTERRUPTED are none: an older run may know more.
STATE_OF_OUTCOME = {"failed": FAILED, "error": ERROR, "passed": PROVEN}


@dataclass(frozen=True)
class Evidence:
    """What the newest run that ran a claim says of it, and whether the claim has changed since."""

    run: Item
    scenario: Item
    changed: bool

    @property
    def started(self) -> float | None:
        started: float | None = self.scenario["started"] or self.run["started"]
        return started


@dataclass(frozen=True)
class Claim:
    """A scenario of a feature with its evidence; where there is none, with the reason."""

    scenario: Scenario
    evidence: Evidence | None
    reason: str

    @property
    def state(self) -> str:
        if self.evidence is None:
            return NEVER
        state = STATE_OF_OUTCOME[self.evidence.scenario["outcome"]]
        return CHANGED if state == PROVEN and self.evidence.changed else state


@dataclass(frozen=True)
class Book:
    """All that the page is made of; of the README's sections those that it shows."""

    sections: tuple[Section, ...]
    commands: tuple[str, ...]
    claims: dict[Feature, list[Claim]]
    runs: Sequence[Item]
    reports: str | None

    def every_claim(self) -> list[Claim]:
        return [claim for claims in self.claims.values() for claim in claims]

    def places(self) -> list[Section | Block]:
        """What claims can be about, in the order of the README: sections and steps."""
        found: list[Section | Block] = []
        for section in self.sections:
            found += [section, *(block for block in section.blocks if block.number is not None)]
        return found

    def about(self, place: Section | Block) -> list[Feature]:
        """The features about a section, which have its title (and a colon and a title of their own, where they are
        several), or about a step, which have its number."""
        if isinstance(place, Section):
            return [feature for feature in self.claims if feature.title.partition(": ")[0] == place.title]
        return [feature for feature in self.claims if feature.number == place.number]

    def without_a_place(self) -> list[Feature]:
        placed = [feature for place in self.places() for feature in self.about(place)]
        return [feature for feature in self.claims if feature not in placed]

    def heading(self, place: Section | Block) -> str:
        """A step is headed by its feature, which is brief; without one by how its text begins."""
        if isinstance(place, Section):
            return place.title
        beginning = re.split(r"[.:;,]\s|\n", place.text)[0]
        return next((feature.title for feature in self.about(place)), f"{place.number}. {beginning}")


def claims_of(feature: Feature, runs: Sequence[Item]) -> list[Claim]:
    claims = []
    for scenario in feature.scenarios:
        reasons = (it["reason"] for run in runs for it in _records(feature, scenario, run))
        reason = next(reasons, "") or "no run on record has it"
        claims.append(Claim(scenario, evidence_of(feature, scenario, runs), reason))
    return claims


def evidence_of(feature: Feature, scenario: Scenario, runs: Sequence[Item]) -> Evidence | None:
    texts = [step.text for step in scenario.steps]
    for run in runs:
        ran = [it for it in _records(feature, scenario, run) if it["outcome"] in STATE_OF_OUTCOME]
        # the rows of a Scenario Outline may share a title
        same = [it for it in ran if [step["text"] for step in it["steps"]] == texts]
        if ran:
            return Evidence(run, (same or ran)[0], changed=not same)
    return None


def _records(feature: Feature, scenario: Scenario, run: Item) -> list[Item]:
    wanted = (feature.path, scenario.title)
    return [it for it in run["scenarios"] if (it["feature"], it["title"]) == wanted]


def last_typed(line: str, runs: Sequence[Item]) -> Item | None:
    """The last command on record that was this line, typed."""
    commands = (command for run in runs for command in reversed(run["commands"]))
    return next((command for command in commands if command["typed"] and command["line"] == line), None)
