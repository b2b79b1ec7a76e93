"""How the values of a run are put into words: the same in display, report, JUnit XML and verdict."""

from __future__ import annotations

import datetime
import difflib
import json
import re
from collections.abc import Iterable, Mapping

# Outcomes of scenarios, in the order they are counted in; and the mark of every outcome, a task's too.
OUTCOMES = ("passed", "failed", "error", "interrupted", "not_run")
MARKS = {"passed": "✓", "done": "✓", "cached": "✓", "failed": "✗", "error": "✗", "interrupted": "!", "not_run": "-"}

# Why a scenario was not run that nobody chose
LEFT_OUT = "left out: something else was chosen"
# ... and that a run does not have unless it is chosen
SLOW = "slow: `make recovery` runs it"

_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # OSC: titles, links
    r"|\x1b[PX^_][^\x1b\n]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[ -/]*[0-~]"
)
# What XML 1.0 has no characters for, and what would command a terminal.
_FORBIDDEN = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(value: object) -> str:
    """Text as a terminal would leave it: no escapes, no control characters, no overwritten progress bars.

    None is empty; what is no text is shown as JSON.
    """
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    text = _ESCAPES.sub("", text)
    if "\r" in text:
        text = "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))
    return _FORBIDDEN.sub("", text)


def one_line(value: object) -> str:
    """Clean text with every run of blanks and newlines as one blank."""
    return " ".join(clean(value).split())


def cut(text: str, width: int) -> str:
    """At most `width` characters of a text; where some are missing the last is an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"


def when(t: float | None, unknown: str = "at no known time") -> str:
    """`2026-08-01 12:00 UTC`, of seconds since the epoch."""
    return unknown if t is None else f"{datetime.datetime.fromtimestamp(t, datetime.UTC):%Y-%m-%d %H:%M} UTC"


def took(seconds: float | None, digits: int = 1) -> str:
    """`3.2 s`, `2 min 03 s`, `1 h 02 min`; empty for None."""
    if seconds is None:
        return ""
    if round(seconds, digits) < 60:
        return f"{max(seconds, 0):.{digits}f} s"
    whole = round(seconds)
    minutes = f"{whole // 60} min {whole % 60:02} s"
    return minutes if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"


def counted(outcomes: Mapping[str, int]) -> str:
    """`14 passed, 1 failed, 3 not run`; empty when nothing has an outcome yet."""
    named = (name for name in OUTCOMES if outcomes.get(name))
    return ", ".join(f"{outcomes[name]} {name.replace('_', ' ')}" for name in named)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean acceptance? `, with the nearest of the known words; empty when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]}? " if near else ""
