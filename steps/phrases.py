"""The shapes of the values in a phrase, the same in every step: `commands`, "names", bare numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from parse import with_pattern
from pytest_bdd import parsers

from harness.errors import PlatformWrong


@with_pattern(r"[^`]+")
def _command(text: str) -> str:
    return text


@with_pattern(r'[^"]+')
def _name(text: str) -> str:
    return text


@with_pattern(r"\d+(?:, \d+)*(?: and \d+)?")
def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.replace(",", " ").replace(" and ", " ").split()]


# Reads terraform.tfvars as it is at the moment of the call
Variables = Callable[[], Mapping[str, Any]]

# A plain {name} of `parse` would run across quotes; these types cannot.
phrase = partial(parsers.cfparse, extra_types={"Command": _command, "Name": _name, "Numbers": _numbers})


def require(holds: object, claim: str, *, expected: Any, seen: Any, where: str = "", paste: str = "") -> None:
    """The one judgement of a Then: raises PlatformWrong with what was expected and seen, unless the claim holds."""
    if not holds:
        raise PlatformWrong(
            f"{claim}: expected {expected}, seen {seen}",
            expected=str(expected),
            seen=str(seen),
            where=where,
            paste=paste,
        )
