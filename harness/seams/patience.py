"""Patience with a slow machine: PATIENCE=4 in the environment makes every time limit four times as long.

For emulated and overloaded machines, on which a sound platform would be called wrong. What then holds, holds within the
longer limits: record and verdict say so.
"""

from __future__ import annotations

import os

from harness.errors import Misconfigured

MOST = 100


def patience() -> float:
    """By what time limits are multiplied: 1 unless asked for. Raises Misconfigured for what is no factor."""
    given = os.environ.get("PATIENCE") or "1"
    try:
        factor = float(given)
    except ValueError:
        factor = 0
    if not 1 <= factor <= MOST:
        raise Misconfigured(
            f"PATIENCE = {given}: give how many times as long limits are to be, a number from 1 to {MOST}"
        )
    return factor
