"""Two things that are wrong at once: what one cannot lead to stays a cause beside it."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from harness.rules.finding import RULES, Finding
from harness.rules.judging import causes, judge
from harness.rules.stands import Foundations
from harness.snapshot.data import Snapshot, decode, encode
from tests.rules.cases import CASES, Changes, look
from tests.transcripts.snapshots import changed, green, later

# Each case that some rule finds something in: an excuse is none where something else is wrong
BROKEN = [(rule, number) for rule, its in CASES.items() if not RULES[rule].excuses
          for number, (_, subjects) in enumerate(its) if subjects]  # fmt: skip


def judged(broken: Snapshot) -> tuple[list[Finding], list[Finding]]:
    """All that is found when a cluster that was green has been like this for a while, and the causes."""
    looks = [green(), later(broken, 1), later(broken, 20)]
    found = judge(looks).findings
    return list(found), [cause.finding for cause in causes(found, looks[-1])]


@functools.cache
def alone(rule: str, number: int) -> tuple[list[Finding], list[Finding]]:
    return judged(look(CASES[rule][number][0]))


def both(one: Changes, other: Changes) -> Snapshot | None:
    """The green snapshot with both changes; None where one leaves nothing that the other could change."""
    now = look(one)
    try:
        return decode(encode(other(now) if callable(other) else changed(now, other)))
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError):
        return None


def can_lead(other: Finding, finding: Finding, foundations: Foundations) -> bool:
    """Whether one is on the other's chain, and of the rules that it can follow from."""
    names = {other.rule, f"{other.rule} {other.subject.kind}", f"{other.rule} otherwise"}
    follows = finding.follows is None or names & set(finding.follows)
    return bool(follows) and other.subject in {finding.subject, *foundations.below(finding.subject)}


def hidden(one: tuple[str, int], other: tuple[str, int]) -> Iterator[str]:
    """What is a cause in one case alone, is found beside the other case, and is no cause there, though nothing that is
    found leads to it."""
    now = both(CASES[one[0]][one[1]][0], CASES[other[0]][other[1]][0])
    if now is None:
        return
    found, named = judged(now)
    foundations, keys = Foundations(now), {finding.key for finding in named}
    for case in (one, other):
        for finding in (it for it in found if it.key in {cause.key for cause in alone(*case)[1]}):
            if finding.key not in keys and not any(can_lead(it, finding, foundations) for it in found if it != finding):
                yield f"{finding.rule}: {finding.subject}"


@given(st.sampled_from(BROKEN), st.sampled_from(BROKEN))
def test_what_nothing_leads_to_is_a_cause_beside_whatever_else_is_wrong(
    one: tuple[str, int], other: tuple[str, int]
) -> None:
    assert list(hidden(one, other)) == []
