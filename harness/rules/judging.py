"""Judges snapshots: which rules do not hold, and which findings are causes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from harness.rules import machines, schedule, services, sites, units  # noqa: F401  (they fill the table)
from harness.rules.finding import ALL, LAYERS, RULES, Finding, Rule, Subject, Wrong
from harness.rules.repairs import repair
from harness.rules.stands import Foundations
from harness.snapshot.data import Snapshot, Struct

# from the ground up, whichever module was loaded first
for _name in sorted(RULES, key=lambda name: LAYERS.index(RULES[name].layer)):
    RULES[_name] = RULES.pop(_name)
# What a reader meets
OF_READERS = ("site-answers", "site-is-whole", "site-is-as-deployed", "sites-are-apart", "name-leads")
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
        """That of some rules, and what leaves parts unknown that they need."""
        needed = {part for name, rule in RULES.items() if name in rules for part in rule.needs}

        def concerned(findings: Sequence[Finding]) -> tuple[Finding, ...]:
            return tuple(it for it in findings if it.rule in rules or not needed.isdisjoint(it.absent))

        return Judgement(concerned(self.findings), concerned(self.unsettled))


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
            mends = repair(name, wrong.subject, now)
            finding = Finding(name, rule.layer, first_seen=first, repair=mends, **vars(wrong))
            (unsettled if late else settled).append(finding)
    return Judgement(tuple(settled), tuple(unsettled))


def _found(rule: Rule, looks: Sequence[Snapshot], at: int) -> list[Wrong]:
    """What a rule finds; nothing of a machine that was asked for a part which it needs, and did not tell."""
    if rule.excuses:
        return list(rule.finds(looks[: at + 1]))
    found = rule.finds(looks[0], looks[at]) if rule.compares else rule.finds(looks[at])
    needs, there = set(rule.needs), looks[at].machines
    silent_on = {name for name, it in there.items() if not needs.isdisjoint(machines.parts_missing(it))}
    return [wrong for wrong in found if wrong.subject.machine not in silent_on]


def _first_seen(rule: Rule, subject: Subject, looks: Sequence[Snapshot]) -> float:
    """When the look was taken from which on every look shows it."""
    first = looks[-1].asked
    for at in range(len(looks) - 2, -1, -1):
        if all(wrong.subject != subject for wrong in _found(rule, looks, at)):
            break
        first = looks[at].asked
    return first


def causes(findings: Sequence[Finding], now: Snapshot) -> tuple[Cause, ...]:
    """The findings that no other explains, each with those that it explains: first those by which readers lose
    something, and of these, and of the others, the deepest first. An excuse that does not explain all the others is
    none."""
    found = _causes(findings, now)
    if len(found) > 1:
        found = _causes([finding for finding in findings if not RULES[finding.rule].excuses], now)
    return tuple(sorted(found, key=lambda cause: not any(finding.rule in OF_READERS for finding in cause.all)))


def _causes(findings: Sequence[Finding], now: Snapshot) -> tuple[Cause, ...]:
    foundations = Foundations(now)
    ordered = sorted(findings, key=_depth)
    explained = {
        finding.key: [other for other in ordered if _explains(finding, other, foundations)] for finding in ordered
    }
    consequences = {other.key for others in explained.values() for other in others}
    left = {finding.key: finding for finding in ordered}
    found = []
    # behind the roots, for none to be lost: findings that explain each other
    for root in sorted(ordered, key=lambda finding: finding.key in consequences):
        if root.key not in left:
            continue
        del left[root.key]
        # what a consequence explains, its cause does
        below = _taken(left, explained, root)
        found.append(Cause(root, tuple(finding for finding in ordered if finding.key in below)))
    return tuple(found)


def _taken(
    left: dict[tuple[str, Subject], Finding], explained: dict[tuple[str, Subject], list[Finding]], root: Finding
) -> set[tuple[str, Subject]]:
    """Takes out of `left` what `root` explains, and what that explains, and so on."""
    taken: set[tuple[str, Subject]] = set()
    queue = [root]
    while queue:
        for finding in explained[queue.pop().key]:
            if left.pop(finding.key, None) is not None:
                taken.add(finding.key)
                queue.append(finding)
    return taken


def _depth(finding: Finding) -> tuple[int, int, float, tuple[str, str, int, str]]:
    kind, name, machine = finding.subject
    # coreos-2 before coreos-10
    subject = (kind, name, len(machine), machine)
    return LAYERS.index(finding.layer), ORDER[finding.rule], finding.since or finding.first_seen, subject


def _explains(cause: Finding, finding: Finding, foundations: Foundations) -> bool:
    explains = RULES[cause.rule].explains if cause.leads is None else cause.leads
    names = {cause.rule, f"{cause.rule} {cause.subject.kind}"}
    names |= {f"{cause.rule} otherwise"} if cause.follows is not None else set()
    if not (finding.follows is None or names & set(finding.follows)) or (cause.untold and not finding.untold):
        return False
    if cause.subject == finding.subject:
        return finding.rule in explains and finding.rule != cause.rule
    if ALL not in explains and finding.rule not in explains:
        return False
    # all stand on processors
    return RULES[cause.rule].excuses or cause.subject in foundations.below(finding.subject)
