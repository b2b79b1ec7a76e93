"""Work in the background that nobody has to wait for, not even who ends: it may be a silent machine's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TypeVar

T = TypeVar("T")


def result_by(future: Future[T], ends: float) -> T | None:
    """What a future gives by then (seconds of the monotonic clock), or raises; None where it has not ended."""
    ended, _ = wait([future], max(ends - time.monotonic(), 0.0))
    return future.result() if ended else None


def begun(do: Callable[[], T]) -> Future[T]:
    """`do()`, under way in a thread of its own. Who asks for the result gets what it raises; everybody may leave."""
    future: Future[T] = Future()

    def answer() -> None:
        try:
            future.set_result(do())
        except BaseException as failed:  # noqa: BLE001  who asks for the result raises it
            future.set_exception(failed)

    threading.Thread(target=answer, daemon=True).start()
    return future


def first_of(
    ways: Sequence[Callable[[], T]],
    after: float,
    ends: float,
    *,
    leave: Callable[[T], object],
    answers: Callable[[BaseException], bool],
) -> T:
    """What the first of these ways to the same thing gives. Each begins when the one before it failed, or gave nothing
    for `after` seconds; what another one gives later is left.

    Raises at once what counts as one of the `answers`, else what the first way that failed raised; TimeoutError where
    none gave anything, and none failed, by then (seconds of the monotonic clock).
    """
    began = time.monotonic()
    to_begin, every, under_way = list(ways), list[Future[T]](), set[Future[T]]()
    won: Future[T] | None = None
    try:
        while to_begin or under_way:
            if to_begin:
                every.append(begun(to_begin.pop(0)))
                under_way.add(every[-1])
            left = max(ends - time.monotonic(), 0.0)
            ended, under_way = wait(under_way, min(after, left) if to_begin else left, FIRST_COMPLETED)
            for way in ended:
                failed = way.exception()
                if failed is None:
                    won = way
                    return way.result()
                if answers(failed):
                    raise failed
            if not ended and not to_begin:
                break
    finally:
        for way in every:
            if way is not won:
                way.add_done_callback(lambda it: None if it.exception() else leave(it.result()))
    for way in every:
        if way.done():
            way.result()
    raise TimeoutError(f"no answer within {ends - began:.1f} s")
