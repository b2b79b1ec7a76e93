"""The one place that waits: what ends a wait, and what it says of what it saw."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from harness.errors import CommandFailed, EnvironmentFailed, ExitStatus, PlatformWrong, WaitExpired
from harness.record.log import Recorder
from harness.seams.wait import AnsweredLate, NotAnswering, NotYet, Waiter
from tests.fakes import FakeClock

Events = Callable[..., list[dict[str, Any]]]


class Probe:
    """Gives what it was given, one at a time (an exception is raised), the last of them for ever."""

    def __init__(self, *values: Any, clock: FakeClock | None = None, takes: float = 0) -> None:
        self.values = list(values)
        self.calls = 0
        self._clock = clock
        self._takes = takes

    def __call__(self) -> Any:
        self.calls += 1
        if self._clock is not None:
            self._clock.now += self._takes
        value = self.values.pop(0) if len(self.values) > 1 else self.values[0]
        if isinstance(value, BaseException) or (isinstance(value, type) and issubclass(value, BaseException)):
            raise value
        return value


@pytest.fixture
def waiter(recorder: Recorder, clock: FakeClock) -> Waiter:
    return Waiter(recorder, clock, every=1)


def is_up(value: str) -> bool:
    return value == "up"


def seen(events: Iterable[dict[str, Any]]) -> list[Any]:
    return [event["value"] for event in events if event["kind"] == "wait.seen"]


# -- a wait that runs out ------------------------------------------------------------------------------------------


def test_a_state_that_is_not_reached_expires_and_says_what_was_last_seen(
    waiter: Waiter, clock: FakeClock, events: Events
) -> None:
    with pytest.raises(WaitExpired) as failed:
        waiter.until(
            "unit blog", Probe("down", "starting"), is_up, within=5, where="coreos-0", paste="fleetctl status blog"
        )

    error = failed.value
    assert str(error) == "unit blog: not within 5 s; last seen: starting"
    assert (error.expected, error.seen) == ("unit blog within 5 s", "starting")
    assert (error.where, error.paste) == ("coreos-0", "fleetctl status blog")
    assert error.status is ExitStatus.PLATFORM_WRONG
    assert clock.now == 1005
    (ended,) = events("wait.ended")
    assert (ended["outcome"], ended["value"], ended["seconds"]) == ("expired", "starting", 5)


def test_a_probe_that_never_saw_its_subject_says_what_it_met(waiter: Waiter) -> None:
    with pytest.raises(WaitExpired, match="last seen: connection refused"):
        waiter.until("the site", Probe(NotYet("connection refused")), is_up, within=3)


def test_a_state_that_flaps_ends_the_wait_at_once(waiter: Waiter, clock: FakeClock, events: Events) -> None:
    probe = Probe("down", "up", "up", "crashed", "up")
    with pytest.raises(WaitExpired) as failed:
        waiter.until("unit blog", probe, is_up, within=60, hold_for=10)

    assert str(failed.value) == "unit blog: reached, but held only 2.0 s of 10 s; then seen: crashed"
    assert (failed.value.expected, failed.value.seen) == ("unit blog for 10 s", "crashed")
    assert probe.calls == 4
    assert clock.now == 1003
    assert events("wait.ended")[0]["outcome"] == "expired"


def test_a_subject_that_goes_out_of_sight_while_it_must_hold_ends_the_wait(waiter: Waiter) -> None:
    with pytest.raises(WaitExpired, match=r"held only 1.0 s of 10 s; then seen: no answer"):
        waiter.until("the site", Probe("up", NotYet("no answer"), "up"), is_up, within=60, hold_for=10)


def test_a_limit_of_nothing_looks_once(waiter: Waiter, clock: FakeClock) -> None:
    probe = Probe("down", "up")
    with pytest.raises(WaitExpired, match="not within 0 s; last seen: down"):
        waiter.until("unit blog", probe, is_up, within=0)

    assert (probe.calls, clock.slept) == (1, [])


def test_a_slow_probe_that_sees_nothing_within_the_limit_is_not_asked_again(waiter: Waiter, clock: FakeClock) -> None:
    probe = Probe("down", "up", clock=clock, takes=30)
    with pytest.raises(WaitExpired, match="not within 10 s; last seen: down"):
        waiter.until("the site", probe, is_up, within=10)

    assert (probe.calls, clock.slept) == (1, [])


@pytest.mark.parametrize(
    "error", [EnvironmentFailed("the engine is gone"), ValueError("what is this"), OSError(5, "I/O")]
)
def test_every_other_error_ends_the_wait_at_once(
    waiter: Waiter, clock: FakeClock, events: Events, error: Exception
) -> None:
    with pytest.raises(type(error)) as raised:
        waiter.until("unit blog", Probe("down", error, "up"), is_up, within=60)

    assert raised.value is error
    assert clock.now == 1001
    (ended,) = events("wait.ended")
    assert (ended["outcome"], ended["value"]) == ("failed", "down")


def test_an_error_of_what_accepts_ends_the_wait_at_once(waiter: Waiter, events: Events) -> None:
    def accept(value: dict[str, str]) -> bool:
        return value["state"] == "up"

    with pytest.raises(KeyError):
        waiter.until("unit blog", Probe({}), accept, within=60)

    assert events("wait.ended")[0]["outcome"] == "failed"


def test_an_interrupted_wait_is_recorded(waiter: Waiter, events: Events) -> None:
    with pytest.raises(KeyboardInterrupt):
        waiter.until("unit blog", Probe("down", KeyboardInterrupt), is_up, within=60)

    started, _, ended = events()
    assert ended["kind"] == "wait.ended"
    assert ended["id"] == started["id"]
    assert (ended["outcome"], ended["value"], ended["seconds"]) == ("failed", "down", 1)


def test_an_interruption_while_asleep_is_recorded(recorder: Recorder, events: Events) -> None:
    class Interrupted(FakeClock):
        def sleep(self, seconds: float) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Waiter(recorder, Interrupted()).until("unit blog", Probe("down"), is_up, within=60)

    assert [event["kind"] for event in events()] == ["wait.started", "wait.seen", "wait.ended"]


# -- a wait that is answered ---------------------------------------------------------------------------------------


def test_a_state_that_is_there_is_taken_at_once(waiter: Waiter, clock: FakeClock, events: Events) -> None:
    assert waiter.until("unit blog", Probe("up"), is_up, within=60) == "up"
    assert clock.slept == []
    (ended,) = events("wait.ended")
    assert (ended["outcome"], ended["value"], ended["seconds"]) == ("reached", "up", 0)


def test_the_value_that_was_accepted_is_given(waiter: Waiter) -> None:
    values = Probe({"units": 1}, {"units": 2}, {"units": 3})

    assert waiter.until("two units", values, lambda value: value["units"] >= 2, within=60) == {"units": 2}


def test_a_subject_that_is_not_there_yet_is_looked_for_again(waiter: Waiter, clock: FakeClock, events: Events) -> None:
    probe = Probe(NotYet("connection refused"), NotYet("connection refused"), "down", "up")

    assert waiter.until("the site", probe, is_up, within=60) == "up"
    assert clock.now == 1003
    assert seen(events()) == ["connection refused", "down", "up"]


def test_a_state_at_the_limit_is_still_looked_for(waiter: Waiter, clock: FakeClock) -> None:
    assert waiter.until("unit blog", Probe(*["down"] * 5, "up"), is_up, within=5) == "up"
    assert clock.now == 1005


def test_a_look_that_takes_longer_than_the_limit_proves_nothing(
    waiter: Waiter, clock: FakeClock, events: Events
) -> None:
    with pytest.raises(AnsweredLate) as late:
        waiter.until("the registration is gone", Probe("up", clock=clock, takes=30), is_up, within=2)

    assert str(late.value) == ("the registration is gone: not known within 2 s, for one look took 30.0 s; it saw: up")
    assert (late.value.expected, late.value.seen) == ("the registration is gone within 2 s", "up, after 30.0 s")
    assert events("wait.ended")[0]["outcome"] == "late"


def test_what_was_asked_for_within_the_limit_counts_though_the_answer_comes_behind_it(
    waiter: Waiter, clock: FakeClock
) -> None:
    assert waiter.until("the site", Probe("down", "up", clock=clock, takes=6), is_up, within=10) == "up"
    assert clock.now == 1013


def test_nothing_is_asked_for_behind_the_limit(recorder: Recorder, clock: FakeClock) -> None:
    probe = Probe("down", "down", "down", "up")
    with pytest.raises(WaitExpired, match=r"not within 2.5 s; last seen: down"):
        Waiter(recorder, clock, every=2).until("the site", probe, is_up, within=2.5)

    assert (probe.calls, clock.now) == (3, 1002.5)


def test_a_state_that_holds_is_reached_when_it_has_held(waiter: Waiter, clock: FakeClock, events: Events) -> None:
    probe = Probe("down", "up")

    assert waiter.until("unit blog", probe, is_up, within=60, hold_for=10) == "up"
    assert clock.now == 1011
    assert (events("wait.started")[0]["hold_for"], events("wait.ended")[0]["seconds"]) == (10, 11)


def test_the_limit_is_for_reaching_and_not_for_holding(waiter: Waiter, clock: FakeClock) -> None:
    assert waiter.until("unit blog", Probe("down", "down", "up"), is_up, within=3, hold_for=10) == "up"
    assert clock.now == 1012


def test_a_state_must_hold_that_has_no_time_to_be_reached(waiter: Waiter, clock: FakeClock) -> None:
    assert waiter.until("unit blog", Probe("up"), is_up, within=0, hold_for=4) == "up"
    assert clock.now == 1004


def test_a_value_that_changes_may_hold_the_state(waiter: Waiter, events: Events) -> None:
    assert waiter.until("two machines", Probe(2, 3, 4), lambda count: count >= 2, within=0, hold_for=3) == 4
    assert seen(events()) == ["2", "3", "4"]


# -- a command that asks what is not there yet ---------------------------------------------------------------------

NOT_THERE = CommandFailed(["docker", "exec", "amb"], 1, "out", "No such container", where="coreos-1")


def test_silence_is_asked_again(waiter: Waiter, clock: FakeClock, events: Events) -> None:
    silent = NotAnswering.of(NOT_THERE)

    assert waiter.until("the ambassador", Probe(silent, silent, "up"), is_up, within=60) == "up"
    assert clock.now == 1002
    assert seen(events()) == [str(NOT_THERE), "up"]


def test_silence_that_lasts_is_what_was_last_seen(waiter: Waiter, clock: FakeClock) -> None:
    with pytest.raises(WaitExpired) as failed:
        waiter.until("the ambassador", Probe("down", NotAnswering.of(NOT_THERE)), is_up, within=3)

    assert (failed.value.seen, clock.now) == (str(NOT_THERE), 1003)


def test_silence_while_a_state_must_hold_ends_the_wait(waiter: Waiter) -> None:
    with pytest.raises(WaitExpired, match=r"held only 1.0 s of 10 s; then seen: .*No such container"):
        waiter.until("the ambassador", Probe("up", NotAnswering.of(NOT_THERE), "up"), is_up, within=60, hold_for=10)


def test_silence_where_nobody_waits_is_the_platforms_fault_and_says_the_same() -> None:
    silent = NotAnswering.of(NOT_THERE)

    assert isinstance(silent, PlatformWrong) and silent.status is ExitStatus.PLATFORM_WRONG
    assert str(silent) == str(NOT_THERE)
    for name in ("argv", "status_seen", "stdout", "stderr", "where", "expected", "seen", "paste"):
        assert getattr(silent, name) == getattr(NOT_THERE, name)


def test_command_that_fails_is_no_silence_unless_somebody_says_so(waiter: Waiter, clock: FakeClock) -> None:
    with pytest.raises(CommandFailed) as raised:
        waiter.until("the ambassador", Probe(NOT_THERE, "up"), is_up, within=60)

    assert raised.value is NOT_THERE and clock.slept == []


# -- the record ----------------------------------------------------------------------------------------------------


def test_the_record_has_what_was_seen_only_when_it_changed(waiter: Waiter, events: Events) -> None:
    waiter.until("unit blog", Probe("down", "down", "starting", "starting", "down", "up"), is_up, within=60)

    started, *changes, ended = events()
    assert (started["what"], started["within"], started["hold_for"]) == ("unit blog", 60, 0)
    assert seen(changes) == ["down", "starting", "down", "up"]
    assert {event["id"] for event in changes} == {started["id"]} == {ended["id"]}


def test_the_record_has_a_value_as_it_is_shown(waiter: Waiter, events: Events) -> None:
    def show(units: list[str]) -> str:
        return f"{len(units)} units"

    with pytest.raises(WaitExpired, match="last seen: 2 units"):
        waiter.until("no unit", Probe(["a", "b"], ["b", "c"]), lambda units: not units, within=3, show=show)

    assert seen(events()) == ["2 units"]


def test_two_waits_are_told_apart(waiter: Waiter, events: Events) -> None:
    waiter.until("one", Probe("up"), is_up, within=1)
    waiter.until("two", Probe("up"), is_up, within=1)

    assert len({event["id"] for event in events("wait.started")}) == 2
