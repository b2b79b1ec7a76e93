"""Work in the background that nobody has to wait for, not even who ends: it may be a silent machine's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
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
