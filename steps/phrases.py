"""The shapes of the values in a phrase, the same in every step: `commands`, "names", bare numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pytest_bdd import parsers

from harness.errors import PlatformWrong


class Type:
    """A type of `parse`: the words it takes (parse asks for `pattern`), and what it reads in them."""

    def __init__(self, pattern: str, read: Callable[[str], Any]) -> None:
        self.pattern = pattern
        self._read = read

    def __call__(self, text: str) -> Any:
        return self._read(text)


def _numbers(text: str) -> list[int]:
    """`1`, `1 and 2`, `22, 80 and 443`"""
    return [int(word) for word in text.replace(",", " ").replace(" and ", " ").split()]


# Tells the requests that run that something changes now: from then on they are counted
Change = Callable[[str], None]
# Reads terraform.tfvars as it is at the moment of the call
Variables = Callable[[], Mapping[str, Any]]

MACHINES = ("no machine", "one machine", "two machines")
# A plain {name} of `parse` would run across quotes; these types cannot.
TYPES = {
    "Command": Type(r"[^`]+", str),
    "Name": Type(r'[^"]+', str),
    "Addresses": Type(r"\d+ address(?:es)?", lambda text: int(text.split()[0])),
    "Machines": Type("|".join(MACHINES), MACHINES.index),
    "Made": Type(r"\d+ machines?", lambda text: int(text.split()[0])),
    "Numbers": Type(r"\d+(?:, \d+)*(?: and \d+)?", _numbers),
}
phrase = partial(parsers.cfparse, extra_types=TYPES)


# Rules that tell whether every machine was seen at all: what is said of every machine does not hold without them
SEEN = ("machine-answers", "answer-is-whole")


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
