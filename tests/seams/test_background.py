"""Work in the background: who asks waits for so long and no longer, and gets what it gives or raises."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any

import pytest

from harness.seams.background import begun, result_by


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


def test_what_it_gives_is_waited_for() -> None:
    def slowly() -> int:
        time.sleep(0.02)
        return 7

    assert result_by(begun(slowly), soon()) == 7


def test_work_is_under_way_before_anybody_asks() -> None:
    goes_on, began = threading.Event(), threading.Event()
    future = begun(lambda: (began.set(), goes_on.wait(9)))

    assert began.wait(5) and not future.done()
    goes_on.set()
    assert result_by(future, soon()) == (None, True)


def test_what_has_not_ended_by_then_is_none_and_may_be_asked_again() -> None:
    goes_on = threading.Event()
    future = begun(lambda: goes_on.wait(9))
    before = time.monotonic()

    assert result_by(future, soon(0.05)) is None and 0.05 <= time.monotonic() - before < 8
    assert result_by(future, soon(-10)) is None
    goes_on.set()
    assert result_by(future, soon()) is True


def test_what_ended_is_given_however_late_one_asks() -> None:
    future: Future[int] = Future()
    future.set_result(7)

    assert result_by(future, soon(-10)) == 7


@pytest.mark.parametrize("error", [TimeoutError("its own"), ValueError("no"), KeyboardInterrupt()])
def test_what_it_raises_is_raised(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        result_by(begun(fail), soon())
    assert raised.value is error


def test_what_ends_just_when_nobody_waits_any_more_is_no_error() -> None:
    """It is not known then whose the TimeoutError was."""

    class JustNow(Future[int]):
        def result(self, timeout: Any = None) -> int:
            if not self.done():
                self.set_result(7)
                raise TimeoutError
            return super().result(timeout)

    assert result_by(JustNow(), soon(-10)) in (None, 7)


def test_nobody_has_to_wait_for_it_not_even_who_ends() -> None:
    goes_on = threading.Event()
    begun(lambda: goes_on.wait(9))

    assert [thread.daemon for thread in threading.enumerate() if "answer" in thread.name] != []
    assert all(thread.daemon for thread in threading.enumerate() if "answer" in thread.name)
    goes_on.set()
