"""Patience: time limits as many times as long, everywhere, and said so."""

from __future__ import annotations

import pytest

from harness.errors import Misconfigured, PlatformWrong, WaitExpired
from harness.record.log import TIME_LIMITS, Recorder, fold
from harness.reports.verdict import judge, screen
from harness.seams.patience import patience
from harness.seams.process import Processes
from harness.seams.wait import Waiter
from tests.fakes import FakeClock


@pytest.mark.parametrize("said", ["x", "0", "0.5", "-3", "101", "inf", "nan", "3 times"])
def test_what_is_no_factor_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATIENCE", said)

    with pytest.raises(Misconfigured, match=f"PATIENCE = {said}: give how many times"):
        patience()


@pytest.mark.parametrize(("said", "factor"), [(None, 1), ("", 1), ("1", 1), ("2.5", 2.5), ("100", 100)])
def test_a_factor(said: str | None, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    if said is None:
        monkeypatch.delenv("PATIENCE", raising=False)
    else:
        monkeypatch.setenv("PATIENCE", said)

    assert patience() == factor


def test_a_wait_takes_as_many_times_as_long_and_holds_no_longer(
    recorder: Recorder, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATIENCE", "4")
    began = clock.now

    with pytest.raises(WaitExpired, match="not within 40 s"):
        Waiter(recorder, clock).until("it is there", lambda: False, bool, within=10)
    assert 40 <= clock.now - began < 41
    began = clock.now
    Waiter(recorder, clock).until("it is there", lambda: True, bool, within=10, hold_for=3)
    assert 3 <= clock.now - began < 4


def test_a_command_may_take_as_many_times_as_long(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PlatformWrong, match=r"did not end within 0\.1 s"):
        Processes(recorder).run(["sleep", "0.3"], within=0.1)
    monkeypatch.setenv("PATIENCE", "20")

    assert Processes(recorder).run(["sleep", "0.3"], within=0.1).status == 0


def test_the_verdict_says_that_limits_were_longer() -> None:
    run = fold([{"t": 1.0, "kind": "run.facts", TIME_LIMITS: "4 times as long as the runbook promises"}])

    assert "  limits     4 times as long as the runbook promises" in screen(run, judge(run)).splitlines()
    assert "limits" not in screen(fold([]), judge(fold([])))
