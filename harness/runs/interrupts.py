"""Signals that ask a run to end, and a terminal that goes away.

The first signal interrupts what may be interrupted; every later one is answered with a line, because what was made is
being removed. A terminal or pipe that went away must stop neither: what cannot be printed any more is dropped.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, ClassVar, TextIO

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """A context in which SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt inside `allowed()` only, and once only.

    Elsewhere `answer` is called, which tells the person that the end is under way. SIGINT is taken over also where a
    script started us with it ignored: pytest inherits that, and would then not hear that it should end.
    """

    def __init__(self, answer: Callable[[], object] = lambda: None) -> None:
        self._answer = answer
        self._may_raise = False
        self._before: dict[int, Any] = {}
        # the one around this one, if any; how many `held()` are open, and whether a signal came meanwhile
        self._outer: Interrupts | None = None
        self._held = 0
        self._came = False

    _current: ClassVar[Interrupts | None] = None

    def __enter__(self) -> Interrupts:
        self._outer, Interrupts._current = Interrupts._current, self
        self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        Interrupts._current = self._outer

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Inside, the first signal raises KeyboardInterrupt; from then on none does."""
        self._may_raise = True
        try:
            yield
        finally:
            self._may_raise = False

    @classmethod
    @contextmanager
    def held(cls) -> Iterator[None]:
        """Inside, a signal waits: what is started here is in somebody's hands before it can be interrupted."""
        current = cls._current
        if current is None:
            yield
            return
        current._held += 1
        try:
            yield
        finally:
            current._held -= 1
            if current._came and not current._held:
                current._came = current._may_raise = False
                raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._may_raise and self._held:
            self._came = True
        elif self._may_raise:
            self._may_raise = False
            raise KeyboardInterrupt
        else:
            self._answer()


class Lasting:
    """A standard stream that outlives its reader: when its terminal or pipe is gone, what is written goes nowhere, and
    nobody is told. A run that removes its cluster must not end because it cannot say so."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        """Points the descriptor elsewhere: what the stream still holds would be written again at its end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def outlive_the_terminal() -> None:
    """Makes standard output and standard error of this process Lasting."""
    sys.stdout, sys.stderr = Lasting(sys.stdout), Lasting(sys.stderr)
