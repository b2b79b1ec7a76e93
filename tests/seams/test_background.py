"""Work in the background: who asks waits for so long and no longer, and gets what it gives or raises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from harness.seams.background import begun, first_of, result_by


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


def first(*ways: Callable[[], int], after: float = 0.05, within: float = 1.0, left: list[int] | None = None) -> int:
    leave = [] if left is None else left
    return first_of(
        ways, after, time.monotonic() + within, leave=leave.append, answers=lambda it: isinstance(it, KeyError)
    )


def gives(number: int, seconds: float = 0.0) -> Callable[[], int]:
    return lambda: (time.sleep(seconds), number)[1]


def raises(error: Exception, seconds: float = 0.0) -> Callable[[], int]:
    def fail() -> int:
        time.sleep(seconds)
        raise error

    return fail


def test_of_several_ways_the_first_that_gives_anything_counts_and_what_comes_later_is_left() -> None:
    left: list[int] = []

    assert first(gives(1), gives(2), left=left) == 1
    assert first(gives(1, 0.3), gives(2), left=left) == 2
    assert first(raises(OSError()), gives(2), after=5, left=left) == 2  # that one failed is not waited for
    assert first(gives(1, 0.2), raises(OSError())) == 1
    assert left == []
    time.sleep(0.3)
    assert left == [1]


def test_of_several_ways_that_fail_the_first_says_why() -> None:
    with pytest.raises(OSError, match="first"):
        first(raises(OSError("first"), 0.1), raises(OSError("second")))
    with pytest.raises(OSError, match="second"):
        first(gives(1, 0.3), raises(OSError("second")), within=0.1)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
        first(gives(1, 0.3), gives(2, 0.3), within=0.1)


def test_of_several_ways_one_that_answers_no_ends_the_matter() -> None:
    with pytest.raises(KeyError):
        first(raises(KeyError("no")), gives(2, 0.01))
