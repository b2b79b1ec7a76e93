"""What fleet 1.0.0 would make of a unit file, said before anything is loaded: for units of anybody.

Sources: fleet v1.0.0 api/units.go (names, and options that exclude each other), job/job.go (what counts), fleetctl (a
warning for an unknown option); the traps are those of harness.model.unit_file and harness.model.placement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.model.placement import SECTION, TRUE, Requirements, matches
from harness.model.unit_file import Parsed, Refused, parse, stored

TYPES = ("service", "socket", "timer", "path", "device", "mount", "automount")
TYPES_OF_TEMPLATES = ("service", "socket", "timer", "path")
CHARACTERS = r"[0-9A-Za-z:_.@\\-]*"
LONGEST_NAME = 256
# Old name -> new one; both count
OLD_NAMES = {
    "X-Conflicts": "Conflicts",
    "X-ConditionMachineOf": "MachineOf",
    "X-ConditionMachineID": "MachineID",
    "X-ConditionMachineBootID": "MachineID",
    "X-ConditionMachineMetadata": "MachineMetadata",
}
KNOWN = {"Global", "Replaces", *OLD_NAMES, *OLD_NAMES.values()}
FALSE = ("false", "no", "0", "off", "f")


@dataclass(frozen=True)
class Remark:
    """What there is to say of a line (0: of the file). One that `fails` is refused by fleet, or means something else
    than it says; another is worth a look."""

    line: int
    text: str
    fails: bool = True

    def of(self, path: Path) -> str:
        """`units/blog.service:3: ...`"""
        place = f"{path}:{self.line}" if self.line else str(path)
        return f"{place}: {'' if self.fails else 'warning: '}{self.text}"


@dataclass(frozen=True)
class Remarks:
    """Lines to print, whether one of them fails, and a line for each file that is good: where its unit may run."""

    lines: list[str]
    fail: bool
    good: list[str]


def lint_files(paths: Sequence[Path]) -> Remarks:
    """All remarks on these files, which are loaded together: fleet knows a unit by its base name. A file that cannot be
    read is a remark too."""
    found: list[tuple[Path, Remark]] = []
    for path in paths:
        twin = next((other for other in paths if other.name == path.name and other != path), None)
        if twin is not None:
            found.append((path, Remark(0, f"{twin} is of the same name, and fleet would drop one of them")))
        try:
            found += [(path, remark) for remark in lint(path.name, path.read_bytes())]
        except OSError as failed:
            found.append((path, Remark(0, f"it cannot be read as a unit file: {failed.strerror}")))
    failed_ones = {path for path, remark in found if remark.fails}
    good = [f"{path}: good, and may run {_where(path)}" for path in paths if path not in failed_ones]
    return Remarks([remark.of(path) for path, remark in found], bool(failed_ones), good)


def _where(path: Path) -> str:
    return Requirements.of(path.name, parse(path.read_bytes()).options).where


def lint(name: str, text: bytes) -> list[Remark]:
    """All remarks on a unit file of this name, in the order of their lines."""
    remarks = [Remark(0, f"the name {name}: {reason}") for reason in _faults_of_name(name)]
    try:
        parsed = parse(text)
        stored(text)
    except Refused as refused:
        return [*remarks, Remark(refused.line, f"fleet refuses it: {refused.reason}")]
    remarks += _of_lines(parsed, text)
    remarks += _of_requirements(name, parsed)
    return sorted(remarks, key=lambda remark: remark.line)


def _faults_of_name(name: str) -> Iterator[str]:
    stem, dot, kind = name.rpartition(".")
    if len(name.encode()) > LONGEST_NAME:
        yield f"fleet refuses more than {LONGEST_NAME} bytes"
    if not dot or kind not in TYPES:
        yield f"fleetctl would make it {name}.service, for it ends in none of .{', .'.join(TYPES)}"
    elif "@" in stem and kind not in TYPES_OF_TEMPLATES:
        yield f"fleet refuses a template of a {kind}"
    if not re.fullmatch(CHARACTERS, stem):
        yield "fleet refuses a character that is none of 0-9 A-Z a-z : _ . @ \\ -"
    if name.startswith("@"):
        yield "fleet refuses one that begins with @"


def _of_lines(parsed: Parsed, text: bytes) -> Iterator[Remark]:
    if not parsed.options:
        yield Remark(0, "it holds no option")
    for line in parsed.before_sections:
        yield Remark(line, "fleet passes over what stands before the first section")
    for line in parsed.in_comments:
        yield Remark(line, "fleet takes this line for a part of the comment above, which ends in a backslash")
    for number, content in enumerate(text.split(b"\n"), 1):
        if re.search(rb"\\[ \t\r]+$", content) and not re.match(rb"\s*[#;]", content):
            yield Remark(number, "a blank behind the backslash: fleet does not go on in the next line")
        try:
            content.decode()
        except UnicodeDecodeError:
            yield Remark(number, "not UTF-8: fleet stores U+FFFD in place of each byte", fails=False)


def _of_requirements(name: str, parsed: Parsed) -> Iterator[Remark]:
    requirements = Requirements.of(name, parsed.options)
    lines: dict[str, int] = {}
    for number, (section, option, value) in zip(parsed.lines, parsed.options, strict=True):
        if section == "Install":
            yield Remark(number, "[Install]: systemd could then start it behind fleet's back", fails=False)
        if section != SECTION:
            continue
        lines[option] = number
        if option not in KNOWN:
            yield Remark(number, f"fleet knows no {option} in [{SECTION}], and goes without it")
        elif option in OLD_NAMES:
            yield Remark(number, f"{option} is an old name: {OLD_NAMES[option]} is the new one", fails=False)
        if OLD_NAMES.get(option, option) == "MachineMetadata":
            for ignored in Requirements.of(name, [(section, option, value)]).ignored:
                yield Remark(
                    number,
                    f"fleet ignores MachineMetadata {ignored!r}, which is not key=value: "
                    'the unit may run on any machine (several pairs: "a=b" "c=d")',
                )
        for peer in Requirements.of(name, [(section, option, value)]).peers:
            if re.search(r"\s", peer) or not peer:
                yield Remark(number, f'MachineOf is one name for fleet, {peer!r}: several are "a.service" "b.service"')
    if "Global" in lines and not requirements.is_global:
        last = [value for section, option, value in parsed.options if (section, option) == (SECTION, "Global")][-1]
        if last.lower() not in FALSE:
            yield Remark(lines["Global"], f"Global={last} is false for fleet: say {' or '.join((TRUE[0], FALSE[0]))}")
    if requirements.machine_id is not None and not re.fullmatch("[0-9a-f]{8}|[0-9a-f]{32}", requirements.machine_id):
        yield Remark(0, f"MachineID {requirements.machine_id} is no machine's: one has 32 hexadecimal digits")
    yield from (Remark(0, f"fleet refuses it: {reason}") for reason in _contradictions(requirements))


def _contradictions(wanted: Requirements) -> Iterator[str]:
    """What fleet's API refuses of options that are sound by themselves."""
    given = {
        "MachineID": wanted.machine_id is not None,
        "MachineOf": bool(wanted.peers),
        "Conflicts": bool(wanted.conflicts),
        "Global": wanted.is_global,
        "Replaces": bool(wanted.replaces),
    }
    apart = [("MachineID", other) for other in ("MachineOf", "Conflicts", "Global", "Replaces")]
    apart += [("Global", "MachineOf"), ("Global", "Replaces"), ("Conflicts", "Replaces")]
    for one, other in apart:
        if given[one] and given[other]:
            yield f"{one} and {other} exclude each other"
    for peer in wanted.peers:
        for pattern in (*wanted.conflicts, *wanted.replaces):
            if matches(pattern, peer):
                yield f"it must be where {peer} is, and not where {pattern} is"
