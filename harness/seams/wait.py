"""The only place that waits: `until` polls a probe until what it sees is accepted.

A wait has a name, a limit, and says what it last saw. It can demand that the accepted state then holds, and (by
what `accept` compares with) that a state changed first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

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
    """Gives `until` its recorder and its clock."""

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
        within *= patience()
        wait = self._recorder.new_id("wait")
        self._recorder.emit("wait.started", id=wait, what=what, within=within, hold_for=hold_for)
        started = self._clock.monotonic()
        shown: Any = None
        held_since: float | None = None
        outcome = "failed"
        try:
            while True:
                asked = self._clock.monotonic()
                try:
                    value = probe()
                    accepted, seen = accept(value), show(value)
                except NotYet as not_yet:
                    accepted, seen = False, str(not_yet)
                now = self._clock.monotonic()
                if seen != shown:
                    shown = seen
                    self._recorder.emit("wait.seen", id=wait, value=seen)
                if accepted and held_since is None and now - asked > within > 0:
                    outcome = "late"
                    raise AnsweredLate(
                        f"{what}: not known within {within:g} s, for one look took {now - asked:.1f} s; it saw: {seen}",
                        expected=f"{what} within {within:g} s",
                        seen=f"{seen}, after {now - asked:.1f} s",
                        where=where,
                        paste=paste,
                    )
                if accepted:
                    held_since = now if held_since is None else held_since
                    if now - held_since >= hold_for:
                        outcome = "reached"
                        return value
                elif held_since is not None:
                    outcome = "expired"
                    raise WaitExpired(
                        f"{what}: reached, but held only {now - held_since:.1f} s of {hold_for:g} s; then seen: {seen}",
                        expected=f"{what} for {hold_for:g} s",
                        seen=str(seen),
                        where=where,
                        paste=paste,
                    )
                elif now - started >= within:
                    outcome = "expired"
                    raise WaitExpired(
                        f"{what}: not within {within:g} s; last seen: {seen}",
                        expected=f"{what} within {within:g} s",
                        seen=str(seen),
                        where=where,
                        paste=paste,
                    )
                # the last look of a state that is not reached begins with the limit, not behind it
                left = started + within - now if held_since is None else self._every
                self._clock.sleep(min(self._every, left))
        finally:
            seconds = round(self._clock.monotonic() - started, 3)
            self._recorder.emit("wait.ended", id=wait, outcome=outcome, value=shown, seconds=seconds)
