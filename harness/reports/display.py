"""The live display for a person who watches: it follows the event log and knows nothing else.

`Display` reads the log in a thread, feeds it to the board and shows that: on a terminal finished
things stand above a region that lives, elsewhere only plain lines are printed.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from harness.reports.board import SPINNER, Board, Event
from harness.reports.lines import Line

POLL = 0.1  # seconds between two looks at the log
WIDEST = 100  # columns; wider, the eye loses the line between a title and its seconds
VERBATIM: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False}
# What printing raises when the console is gone; rich makes a SystemExit of a broken pipe.
GONE = (OSError, SystemExit)
# For a terminal that has no Unicode.
ASCII = str.maketrans({"✓": "+", "✗": "x", "…": "~", "·": "-", "›": ">"} | dict.fromkeys(SPINNER, "*"))


class Tail:
    """Reads the log as it grows, from its beginning or `after` so many bytes. A half-written last line is kept until
    its end comes, one that is torn is left out."""

    def __init__(self, path: Path, after: int = 0) -> None:
        self._path = path
        self._after = after
        self._file: BinaryIO | None = None
        self._rest = b""

    def read(self) -> list[Event]:
        """The events since the last call; none while there is no log yet."""
        if self._file is None:
            try:
                self._file = self._path.open("rb")
                self._file.seek(self._after)
            except FileNotFoundError:
                return []
        fresh = self._file.read()
        if not fresh:
            return []
        *lines, self._rest = (self._rest + fresh).split(b"\n")
        return [event for event in map(_event, lines) if event is not None]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "kind" in event and "t" in event else None


class Display:
    """Shows a run while it goes on: `start()`, `stop()`, or as a context. A console that goes away ends it quietly.

    Of a record that goes on, only what comes `after` so many bytes is shown."""

    def __init__(self, path: Path, console: Console, clock: Callable[[], float] = time.time, after: int = 0) -> None:
        self.board = Board()
        self._tail = Tail(path, after)
        self._console = console
        self._clock = clock
        self._lively = console.is_terminal and not console.is_dumb_terminal
        self._live: Live | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="display", daemon=True)

    def start(self) -> None:
        if self._lively:
            self._live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
            self._live.start()
        self._thread.start()

    def stop(self) -> None:
        """Shows what the log holds by now, and what was left under way; the region is wiped."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(*GONE):  # the log has everything
            self.tick()
            self._print(self.board.finish(self._clock()))
        with contextlib.suppress(*GONE):
            if self._live is not None:
                self._live.stop()
        self._tail.close()

    def __enter__(self) -> Display:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _follow(self) -> None:
        while not self._stopped.wait(POLL):
            try:
                self.tick()
            except GONE:
                return

    def tick(self) -> None:
        """Reads what is new and shows it. Raises one of GONE when the console is."""
        for event in self._tail.read():
            self._print(self.board.feed(event))
        now = self._clock()
        if self._live is not None:
            lines = self.board.live(now)[: max(self._console.height - 1, 1)]
            self._live.update(Group(*(self._fitted(line) for line in lines)), refresh=True)
        elif not self._lively:
            self._print(self.board.reminders(now))

    def _print(self, lines: list[Line]) -> None:
        for line in lines:
            if line.plain_only and self._lively:
                continue
            text = self._verbatim(line) if line.verbatim else self._wrapped(line)
            self._console.print(text if self._lively else text.plain, soft_wrap=True, **VERBATIM)

    def _text(self, text: str, style: str = "") -> Text:
        return Text(text if self._console.encoding.startswith("utf") else _ascii(text), style, end="")

    def _lead(self, line: Line) -> Text:
        return self._text("  " * line.indent).append_text(self._text(f"{line.mark} " if line.mark else "", line.style))

    def _verbatim(self, line: Line) -> Text:
        return self._lead(line).append_text(self._text(line.text))

    def _wrapped(self, line: Line) -> Text:
        """A line for good: wrapped under its own beginning, seconds at the right (plain: at the end)."""
        text, right = self._lead(line), self._text(f"  {line.right}" if line.right else "", "dim")
        hanging = "\n" + "  " * (line.indent + bool(line.mark))
        aligned = right.cell_len if self._lively else 0
        width = min(self._console.width, WIDEST) if self._lively else self._console.width
        room = max(width - text.cell_len - aligned, 10)
        left = room
        for number, part in enumerate(self._text(line.text, "bold" if line.bold else "").wrap(self._console, room)):
            part.rstrip()
            text.append(hanging if number else "").append_text(part)
            if aligned and number == 0:
                text.append(" " * max(room - part.cell_len, 0)).append_text(right)
            left = room - part.cell_len
        if not aligned and right.plain:
            text.append(hanging if left < right.cell_len else "").append_text(right)
        return text

    def _fitted(self, line: Line) -> Text:
        """A line of the region that lives: cut to the width, seconds at the right."""
        right = self._text(f"  {line.right}" if line.right else "", "dim")
        text = self._lead(line).append_text(self._text(line.text, "bold" if line.bold else ""))
        room = max(min(self._console.width, WIDEST) - right.cell_len, 10)
        text.truncate(room, overflow="ellipsis", pad=True)
        text.append_text(right).end = "\n"
        return text


def _ascii(text: str) -> str:
    return text.translate(ASCII).encode("ascii", "replace").decode()
