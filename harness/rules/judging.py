"""Judges snapshots: which rules do not hold, and which findings are causes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.rules import machines, schedule, services, sites, units  # noqa: F401  (they fill the table)
from harness.rules.finding import ALL, LAYERS, RULES, Finding, Rule, Subject, Wrong
from harness.rules.stands import Foundations
from harness.snapshot.data import Snapshot, Struct

ORDER = {name: number for number, name in enumerate(RULES)}


@dataclass(frozen=True)
class Judgement:
    """What the newest look finds: what counts, and what counts only if a later look agrees."""

    findings: tuple[Finding, ...]
    unsettled: tuple[Finding, ...]

    @property
    def all(self) -> tuple[Finding, ...]:
        return (*self.findings, *self.unsettled)

    def of(self, rules: Collection[str]) -> Judgement:
        """That of some rules."""
        return Judgement(
            tuple(found for found in self.findings if found.rule in rules),
            tuple(found for found in self.unsettled if found.rule in rules),
        )


class Cause(Struct, frozen=True, omit_defaults=True):
    """A finding that no other explains, and those that it explains."""

    finding: Finding
    consequences: tuple[Finding, ...] = ()

    @property
    def all(self) -> tuple[Finding, ...]:
        return (self.finding, *self.consequences)


def judge(looks: Sequence[Snapshot], expected: Collection[tuple[str, Subject]] = ()) -> Judgement:
    """All rules, on the newest of these looks; the others are its history, oldest first.

    What is `expected` (rule and subject: somebody breaks it on purpose just now) is no finding.
    """
    now = looks[-1]
    settled: list[Finding] = []
    unsettled: list[Finding] = []
    for name, rule in RULES.items():
        shown: dict[Subject, float] = {}
        for wrong in _found(rule, looks, len(looks) - 1):
            if (name, wrong.subject) in expected or wrong.subject in shown:
                continue
            shown[wrong.subject] = first = _first_seen(rule, wrong.subject, looks)
            late = now.asked - first < rule.lag
            finding = Finding(
                name, rule.layer, wrong.subject, wrong.expected, wrong.seen, first, wrong.since, wrong.paste
            )
            (unsettled if late else settled).append(finding)
    return Judgement(tuple(settled), tuple(unsettled))


def _found(rule: Rule, looks: Sequence[Snapshot], at: int) -> list[Wrong]:
    return list(rule.finds(looks[0], looks[at]) if rule.compares else rule.finds(looks[at]))


def _first_seen(rule: Rule, subject: Subject, looks: Sequence[Snapshot]) -> float:
    """When the look was taken from which on every look shows it."""
    first = looks[-1].asked
    for at in range(len(looks) - 2, -1, -1):
        if all(wrong.subject != subject for wrong in _found(rule, looks, at)):
            break
        first = looks[at].asked
    return first


def causes(findings: Sequence[Finding], now: Snapshot) -> tuple[Cause, ...]:
    """The findings that no other explains, the deepest first, each with those that it explains."""
    foundations = Foundations(now)
    ordered = sorted(findings, key=_depth)
    explained: dict[tuple[str, Subject], list[Finding]] = {}
    by_cause: Mapping[tuple[str, Subject], list[Finding]] = explained
    roots: list[Finding] = []
    for finding in ordered:
        root = next((cause for cause in roots if _explains(cause, finding, foundations)), None)
        if root is None:
            roots.append(finding)
        else:
            explained.setdefault(root.key, []).append(finding)
    return tuple(Cause(root, tuple(by_cause.get(root.key, ()))) for root in roots)


def _depth(finding: Finding) -> tuple[int, int, float]:
    return LAYERS.index(finding.layer), ORDER[finding.rule], finding.since or finding.first_seen


def _explains(cause: Finding, finding: Finding, foundations: Foundations) -> bool:
    explains = RULES[cause.rule].explains
    if cause.subject == finding.subject:
        return finding.rule in explains and finding.rule != cause.rule
    if ALL not in explains and finding.rule not in explains:
        return False
    return cause.subject in foundations.below(finding.subject)
