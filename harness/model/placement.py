"""Where fleet 1.0.0 lets a unit run: the requirements that it reads out of [X-Fleet], and what they mean.

Sources: fleet v1.0.0 job/job.go (requirements), unit/unit.go (several values on a line, specifiers), agent/state.go and
engine/state.go (who may be beside whom); path.Match of Go for patterns.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

SECTION = "X-Fleet"
# In a pattern's brackets: a character, behind a backslash where it is one of these; two with a hyphen are a range
_CHARACTER = r"(?:\\.|[^\\\]-])"
RANGE = re.compile(rf"({_CHARACTER})(?:-({_CHARACTER}))?", re.DOTALL)
CLASS = re.compile(rf"\[(?P<not>\^?+)(?P<ranges>(?:{_CHARACTER}(?:-{_CHARACTER})?)+)\]", re.DOTALL)
TRUE = ("true", "yes", "1", "on", "t")


@dataclass(frozen=True)
class Requirements:
    """What fleet makes of a unit's [X-Fleet] section.

    `machine_id` is a machine's id or its first eight characters; None where any will do. `metadata` is key -> values,
    of which one must be the machine's. `peers` must be on the same machine. `conflicts` and `replaces` are patterns of
    names. `ignored` are the values of MachineMetadata that fleet passes over without a word: the unit may then run
    where it was not meant to.
    """

    machine_id: str | None
    metadata: Mapping[str, frozenset[str]]
    peers: tuple[str, ...]
    conflicts: tuple[str, ...]
    replaces: tuple[str, ...]
    is_global: bool
    ignored: tuple[str, ...]

    @classmethod
    def of(cls, name: str, options: Iterable[tuple[str, str, str]]) -> Requirements:
        """Those of a unit of this name with these options (section, name, value)."""
        options_named: dict[str, list[str]] = {}
        for section, option, line in options:
            if section == SECTION:
                options_named.setdefault(option, []).extend(_expanded(value, name) for value in _values(line))

        def get(*options: str) -> list[str]:
            return [value for option in options for value in options_named.get(option, ())]

        metadata: dict[str, set[str]] = {}
        ignored = []
        for value in get("X-ConditionMachineMetadata", "MachineMetadata"):
            key, *rest = value.split("=")
            if len(rest) == 1 and key and rest[0]:
                metadata.setdefault(key, set()).add(rest[0])
            else:
                ignored.append(value)
        # the new name first, then the old ones; a boot id is compared with machine ids, and so with none
        machine_ids = get("MachineID", "X-ConditionMachineID", "X-ConditionMachineBootID")
        return cls(
            machine_ids[0] if machine_ids else None,
            {key: frozenset(values) for key, values in metadata.items()},
            tuple(get("X-ConditionMachineOf", "MachineOf")),
            tuple(word for value in get("X-Conflicts", "Conflicts") for word in value.split()),
            tuple(get("Replaces")),
            (get("Global") or [""])[-1].lower() in TRUE,
            tuple(ignored),
        )

    @property
    def where(self) -> str:
        """Where the unit may run, in words: `on every machine with disk=ssd`."""
        machine = f"machine {self.machine_id}" if self.machine_id else "any machine"
        parts = ["on every machine" if self.is_global else f"on {machine}"]
        parts += [
            "with " + " or ".join(f"{key}={value}" for value in sorted(values)) for key, values in self.metadata.items()
        ]
        parts += [f"where {peer} is" for peer in self.peers] + [f"where no {pattern} is" for pattern in self.conflicts]
        return " ".join(parts[:2]) + "".join(f" and {part}" for part in parts[2:])

    def allow(self, machine_id: str, metadata: Mapping[str, str]) -> bool:
        """Whether the unit may run on this machine, whoever else does. Of a global one only metadata is looked at."""
        if self.machine_id not in (None, machine_id, machine_id[:8]) and not self.is_global:
            return False
        return all(metadata.get(key) in values for key, values in self.metadata.items())


@dataclass(frozen=True)
class Neighbour:
    """A unit that is on a machine."""

    name: str
    requirements: Requirements


def objection(unit: Neighbour, others: Collection[Neighbour]) -> str:
    """What fleet has against a unit on a machine where these others are; "" for nothing. Conflicts hold for both,
    whichever of them says so; of two that replace each other neither is moved."""
    there = {other.name for other in others}
    for peer in unit.requirements.peers:
        if peer not in there:
            return f"not where {peer} is"
    for other in others:
        if other.name == unit.name:
            continue
        if _any_matches(unit.requirements.conflicts, other.name) or _any_matches(
            other.requirements.conflicts, unit.name
        ):
            return f"conflicts with {other.name}, which is there too"
    for other in others:
        if other.name == unit.name:
            continue
        replaces = _any_matches(unit.requirements.replaces, other.name)
        if replaces != _any_matches(other.requirements.replaces, unit.name):
            return f"{'replaces' if replaces else 'is replaced by'} {other.name}, which is there too"
    return ""


def _any_matches(patterns: Iterable[str], name: str) -> bool:
    return any(matches(pattern, name) for pattern in patterns)


# -- values ----------------------------------------------------------------------------------------------------------


def _values(line: str) -> list[str]:
    """Several values of a line are each in quotes, with one blank between them; any other line is one value."""
    if not (line.startswith('"') and line.endswith('"')):
        return [line]
    values, value, quoted = [], "", False
    for character in line:
        if character == '"':
            quoted = not quoted
        elif character == " " and not quoted:
            values.append(value)
            value = ""
        else:
            value += character
    return [*values, value]


def _expanded(value: str, name: str) -> str:
    """The specifiers of fleet, which knows four; others stay."""
    stem, dot, _ = name.rpartition(".")
    if not dot:
        return value
    prefix, _, instance = stem.partition("@")
    for specifier, text in (("%n", name), ("%N", stem), ("%p", prefix), ("%i", instance)):
        value = value.replace(specifier, text)
    return value


# -- patterns --------------------------------------------------------------------------------------------------------


def matches(pattern: str, name: str) -> bool:
    """Whether Go's path.Match says so; a malformed pattern matches nothing."""
    compiled = _compiled(pattern)
    return compiled is not None and compiled.fullmatch(name) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """The pattern as a regular expression; None for a malformed one."""
    expression, rest = "", pattern
    while rest:
        if rest[0] == "[":
            found = CLASS.match(rest)
            if found is None:
                return None
            expression += _class(found)
            rest = rest[found.end() :]
        elif rest[0] == "\\":
            if len(rest) == 1:
                return None
            expression += re.escape(rest[1])
            rest = rest[2:]
        else:
            expression += {"*": "[^/]*", "?": "[^/]"}.get(rest[0]) or re.escape(rest[0])
            rest = rest[1:]
    return re.compile(expression, re.DOTALL)


def _class(found: re.Match[str]) -> str:
    """A bracket of characters and ranges; a range that ends before it begins holds nothing."""
    members = ""
    for low, high in RANGE.findall(found["ranges"]):
        low, high = low[-1], (high or low)[-1]
        if low <= high:
            members += f"{re.escape(low)}-{re.escape(high)}"
    if found["not"]:
        return f"[^{members}]" if members else "."
    return f"[{members}]" if members else "(?!)"
