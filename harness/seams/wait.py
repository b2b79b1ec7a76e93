"""The place that waits: `until` polls a probe until what it sees is accepted. (A run's watch waits between its looks.)

A wait has a name, a limit, and says what it last saw. It can demand that the accepted state then holds, and (by
what `accept` compares with) that a state changed first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from harness.errors import CommandFailed, WaitExpired
from harness.record.log import Recorder
from harness.seams.patience import patience

T = TypeVar("T")

# A probe that finds nothing yet raises this; it is retried until the limit. Every other error ends the wait at once.


class NotYet(Exception):
    """The probe cannot see its subject yet; the text says what it met."""


class NotAnswering(CommandFailed, NotYet):
    """A command that asks for something failed as it does while that is not there: a wait asks again, anything else
    takes it for a fault of the platform."""

    @classmethod
    def of(cls, failed: CommandFailed) -> NotAnswering:
        return cls(failed.argv, failed.status_seen, failed.stdout, failed.stderr, failed.where)


class AnsweredLate(WaitExpired):
    """One look took longer than the whole limit: whether the state was reached within it is not known."""


class Clock(Protocol):
    def monotonic(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class Waiter:
    """Gives `until` its recorder and its clock; `every` is how many seconds are between two looks."""

    def __init__(self, recorder: Recorder, clock: Clock = time, every: float = 0.2) -> None:
        self._recorder = recorder
        self._clock = clock
        self._every = every

    def until(
        self,
        what: str,
        probe: Callable[[], T],
        accept: Callable[[T], bool],
        *,
        within: float,
        hold_for: float = 0,
        show: Callable[[T], Any] = str,
        where: str = "",
        paste: str = "",
    ) -> T:
        """The first value of `probe` that `accept` takes, within `within` seconds, and for `hold_for` seconds on.

        What is accepted was asked for within the limit, and one look is always made. While holding, a value that is not
        accepted ends the wait at once: a state that flaps is not reached. `show` makes the value short enough for a
        line. Raises WaitExpired with what was last seen, AnsweredLate when the look that would be accepted took longer
        than the limit.
        """
        wait = _Wait(self._recorder, self._clock, what, within * patience(), hold_for, where, paste)
        try:
            while True:
                asked, value, accepted = self._clock.monotonic(), None, False
                try:
                    value = probe()
                    accepted, seen = accept(value), show(value)
                except NotYet as not_yet:
                    seen = str(not_yet)
                if wait.over(asked, accepted, seen):
                    return cast("T", value)
                wait.pause(self._every)
        finally:
            wait.ended()


class _Wait:
    """One wait: when it began, what it last saw, since when that holds."""

    def __init__(
        self, recorder: Recorder, clock: Clock, what: str, within: float, hold_for: float, where: str, paste: str
    ) -> None:
        self._recorder, self._clock = recorder, clock
        self._what, self._within, self._hold_for = what, within, hold_for
        self._place = {"where": where, "paste": paste}
        self._id = recorder.new_id("wait")
        recorder.emit("wait.started", id=self._id, what=what, within=within, hold_for=hold_for)
        self._started = clock.monotonic()
        self._shown: Any = None
        self._held_since: float | None = None
        self._outcome = "failed"

    def over(self, asked: float, accepted: bool, seen: Any) -> bool:
        """Whether what was asked for at `asked` ends the wait as reached. Raises WaitExpired when it cannot be any
        more."""
        now = self._clock.monotonic()
        if seen != self._shown:
            self._shown = seen
            self._recorder.emit("wait.seen", id=self._id, value=seen)
        if accepted and self._held_since is None and now - asked > self._within > 0:
            self._outcome = "late"
            raise self._late(now - asked)
        if accepted:
            self._held_since = now if self._held_since is None else self._held_since
            if now - self._held_since >= self._hold_for:
                self._outcome = "reached"
            return self._outcome == "reached"
        self._outcome = "expired"
        if self._held_since is not None:
            raise self._expired(
                f"{self._what} for {self._hold_for:g} s",
                f"reached, but held only {now - self._held_since:.1f} s of {self._hold_for:g} s; then seen: {seen}",
            )
        if now - self._started >= self._within:
            limit = f"within {self._within:g} s"
            raise self._expired(f"{self._what} {limit}", f"not {limit}; last seen: {seen}")
        self._outcome = "failed"
        return False

    def _expired(self, expected: str, reason: str) -> WaitExpired:
        return WaitExpired(f"{self._what}: {reason}", expected=expected, seen=str(self._shown), **self._place)

    def _late(self, took: float) -> AnsweredLate:
        limit, took_s = f"within {self._within:g} s", f"{took:.1f} s"
        return AnsweredLate(
            f"{self._what}: not known {limit}, for one look took {took_s}; it saw: {self._shown}",
            expected=f"{self._what} {limit}",
            seen=f"{self._shown}, after {took_s}",
            **self._place,
        )

    def pause(self, every: float) -> None:
        """The last look of a state that is not reached begins with the limit, not behind it."""
        left = self._started + self._within - self._clock.monotonic()
        self._clock.sleep(every if self._held_since is not None else min(every, max(left, 0)))

    def ended(self) -> None:
        seconds = round(self._clock.monotonic() - self._started, 3)
        self._recorder.emit("wait.ended", id=self._id, outcome=self._outcome, value=self._shown, seconds=seconds)
