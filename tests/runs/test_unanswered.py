"""A watch with all rules: what was asked and never answered passes nowhere, and nothing is named too early."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from harness.errors import WaitExpired
from harness.record.log import Recorder
from harness.rules.judging import causes, judge
from harness.runs.watch import RuleBroken, Watch
from harness.snapshot.data import Registration, Snapshot
from harness.snapshot.look import Looker
from tests.fakes import FakeClock
from tests.transcripts.snapshots import changed, green

Watching = Callable[[Mapping[str, Any]], Watch]


@pytest.fixture
def watching(recorder: Recorder, tmp_path: Path) -> Iterator[Watching]:
    """A watch on the green cluster with these changes; every look shows the same."""
    clock = FakeClock()

    def make(changes: Mapping[str, Any]) -> Watch:
        class Shows:
            def look(self, number: int, *_: object, **__: object) -> Snapshot:
                return replace(changed(green(), changes), number=number, asked=1785580000.0 + clock.now)

        return Watch(lambda: cast("Looker", Shows()), recorder, tmp_path, clock)

    yield make


@pytest.mark.parametrize(
    ("part", "rules"),
    [
        ("plan", ("plan-is-empty",)),
        ("outside.walks", ("site-is-whole",)),
        ("outside.walks", ("site-is-as-deployed",)),
        ("outside.walks", ("sites-are-apart",)),
        ("outside.ports", ("port-is-open",)),
        ("outside.ports", ("machine-answers", "answer-is-whole", "port-is-closed", "filter-is-loaded")),
        ("outside.kernel", ("memory-suffices",)),
        ("outside.names", ("name-leads",)),
    ],
)
def test_what_was_asked_and_not_answered_is_waited_for_and_then_wrong(
    watching: Watching, part: str, rules: tuple[str, ...]
) -> None:
    with pytest.raises(RuleBroken, match="asked, and no answer in 2 s"):
        watching({part: None}).until("it holds", rules, 10)
    unasked = {part: None, "unasked": (part.split(".")[-1],)}
    watching(unasked).until("it holds", rules, 10)


def test_the_last_of_all_scenarios_asks_for_every_answer(watching: Watching) -> None:
    watch = watching({"outside.names": None})
    with pytest.raises(RuleBroken, match=r"name genkisugimoto\.com: "):
        watch.until("nothing else is wrong", watch.others(), 10)


def test_a_stray_registration_beside_what_was_injected_is_named(watching: Watching) -> None:
    """It lags: at the first look it does not count."""
    flushed = {"machines.coreos-1.units.filter.service.active": "failed", "machines.coreos-1.filter": ""}
    expected = [(it.finding.rule, str(it.finding.subject)) for it in causes(*judged(flushed))]

    watching(flushed).names("what was injected is named", expected, 20)
    with pytest.raises(WaitExpired, match="registration blog/stray"):
        stray = {"services.blog.stray": Registration("{}", "192.0.2.254:1", None)}
        watching(flushed | stray).names("what was injected is named", expected, 20)


def judged(changes: Mapping[str, Any]) -> tuple[Any, Snapshot]:
    now = changed(green(), changes)
    return judge([now]).findings, now
