"""The ways to a site, laid out: its name, the machine that it leads to, every machine's entry point and ambassador, and
the instances that these lead to. Machines whose part is the same are one row where there are many.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.reports.marks import Marks, of_unit
from harness.snapshot.data import Answer, Snapshot
from harness.text import cut

# So many machines are drawn one by one
FEW = 9
# The picture: its first row and the distance of two; where lines leave ambassadors and reach instances
WIDTH, TOP, STEP, BOTTOM = 340, 78, 34, 8
LEAVES, REACHES = 188, 210
# Characters that a box has room for
OF_ENTRY, OF_INSTANCE = 11, 16


@dataclass(frozen=True)
class Row:
    """A machine's part of the ways, or that of several: what a request to its entry point got, and its ambassador."""

    machines: tuple[str, ...]
    y: float
    answer: str
    ambassador: str
    glyph: str  # of the entry point
    glyph_of_ambassador: str
    led: bool  # the name leads here

    @property
    def label(self) -> str:
        return cut(self.machines[0], OF_ENTRY) if len(self.machines) == 1 else f"{len(self.machines)} machines"


@dataclass(frozen=True)
class Instance:
    """An address where the service runs, or is said to."""

    address: str
    label: str
    says: str
    glyph: str
    y: float


@dataclass(frozen=True)
class Line:
    """From an ambassador to an instance that is one of its servers."""

    path: str
    up: bool


@dataclass(frozen=True)
class Way:
    """The picture of one site."""

    site: str
    domain: str
    leads: str
    glyph: str
    rows: tuple[Row, ...]
    instances: tuple[Instance, ...]
    lines: tuple[Line, ...]
    height: float

    @property
    def led_y(self) -> float | None:
        return next((row.y for row in self.rows if row.led), None)


def ways(now: Snapshot, marks: Marks) -> tuple[Way, ...]:
    return tuple(_way(now, marks, site, domain) for site, domain in now.intended.sites.items())


def place(now: Snapshot, address: str) -> str:
    """HOST:PORT with the machine's name for its address."""
    host, colon, port = address.rpartition(":")
    names = {its: name for name, its in now.intended.machines.items()}
    return f"{names.get(host, host)}{colon}{port}"


def _way(now: Snapshot, marks: Marks, site: str, domain: str) -> Way:
    led, leads = _leads(now, domain)
    groups: dict[tuple[object, ...], list[str]] = {}
    for name in now.intended.machines:
        alone = name if len(now.intended.machines) <= FEW else ""
        groups.setdefault((alone, *_part(now, marks, site, name), name == led), []).append(name)
    found = _instances(now, site)
    tall = max(len(groups), len(found), 1)
    rows = tuple(
        Row(tuple(names), TOP + STEP * (number + (tall - len(groups)) / 2), *_shown(key))
        for number, (key, names) in enumerate(groups.items())
    )
    instances = tuple(
        _instance(now, marks, site, address, says, TOP + STEP * (number + (tall - len(found)) / 2))
        for number, (address, says) in enumerate(found.items())
    )
    glyph = marks.of(("name", domain, ""), ("site", site, ""), ("registration", site, ""), ("contents of", site, ""))
    lines = tuple(_lines(now, site, rows, instances))
    height = TOP + STEP * (tall - 0.5) + BOTTOM
    return Way(site, domain, leads, glyph or ("on" if led else "off"), rows, instances, lines, height)


def _leads(now: Snapshot, domain: str) -> tuple[str, str]:
    """The machine that a name leads to ("": none), and that in words."""
    by_address = {address: name for name, address in now.intended.machines.items()}
    if now.outside.names is None:
        entry = by_address.get(now.intended.entry_point, "")
        return entry, f"no name server; entry point {now.intended.entry_point}"
    address = now.outside.names.get(domain, "")
    if not address:
        return "", "leads nowhere"
    name = by_address.get(address, "")
    return name, f"leads to {address}, {name}" if name else f"leads to {address}, no machine"


def _part(now: Snapshot, marks: Marks, site: str, name: str) -> tuple[str, str, str, str]:
    """A machine's: answer, ambassador, and the glyphs of its entry point and its ambassador."""
    machine = now.machines.get(name)
    if machine is None or machine.silent:
        silent = marks.of(("machine", "", name)) or "off"
        return "silent", "", silent, silent
    answer = (now.outside.sites.get(site) or {}).get(name)
    servers = machine.ambassadors.get(site)
    entry = marks.of(*of_unit("entry.service", name), ("site", site, name))
    ambassador = marks.of(*of_unit(f"{site}-dynamic-amb.service", name))
    return (
        _answered(answer),
        _counted(servers),
        entry or ("on" if answer is not None and answer.status == 200 else "off"),
        ambassador or ("on" if "UP" in (servers or {}).values() else "off"),
    )


def _shown(key: tuple[object, ...]) -> tuple[str, str, str, str, bool]:
    _, answer, ambassador, entry, of_ambassador, led = key
    return str(answer), str(ambassador), str(entry), str(of_ambassador), bool(led)


def _answered(answer: Answer | None) -> str:
    if answer is None:
        return ""
    return "no answer" if answer.failed else str(answer.status)


def _counted(servers: Mapping[str, str] | None) -> str:
    if servers is None:
        return "none"
    up = sum(state == "UP" for state in servers.values())
    if not servers:
        return "0 UP"
    return f"{up} UP" if up == len(servers) else f"{up}/{len(servers)} UP"


def _instances(now: Snapshot, site: str) -> dict[str, str]:
    """Address (of a malformed registration its key) -> what is registered there, in words; "" where nothing is."""
    keys = (now.services or {}).get(site) or {}
    found = {key.address or name: "registered" if key.address else "no address" for name, key in keys.items()}
    servers = {address for machine in now.machines.values() for address in machine.ambassadors.get(site) or ()}
    return {address: found.get(address, "") for address in sorted({*found, *now.running(site), *servers})}


def _unit_of(container: str) -> str:
    """`blog@2.service` of `blog-2`."""
    return re.sub(r"-(\d+)$", r"@\1", container) + ".service"


def _instance(now: Snapshot, marks: Marks, site: str, address: str, registered: str, y: float) -> Instance:
    runs = now.running(site).get(address)
    keys = [name for name, key in ((now.services or {}).get(site) or {}).items() if address in (key.address, name)]
    subjects = [("registration", f"{site}/{name}", "") for name in keys]
    # a key is MACHINE:CONTAINER
    places = [name.rpartition(":")[::2] for name in keys] + ([runs] if runs else [])
    for machine, container in places:
        subjects += [*of_unit(_unit_of(container), machine), ("registration", site, machine), ("machine", "", machine)]
    says = registered or "not registered" if runs else "not seen to run"
    glyph = marks.of(*subjects) or ("on" if runs and registered else "off")
    return Instance(address, cut(place(now, address), OF_INSTANCE), says, glyph, y)


def _lines(now: Snapshot, site: str, rows: tuple[Row, ...], instances: tuple[Instance, ...]) -> list[Line]:
    ends = {instance.address: instance.y for instance in instances}
    middle = (LEAVES + REACHES) // 2
    lines: dict[str, bool] = {}
    for row in rows:
        for name in row.machines:
            machine = now.machines.get(name)
            for address, state in ((machine.ambassadors.get(site) if machine else None) or {}).items():
                path = f"M{LEAVES} {row.y:g}C{middle} {row.y:g} {middle} {ends[address]:g} {REACHES} {ends[address]:g}"
                lines[path] = lines.get(path, True) and state == "UP"
    return [Line(path, up) for path, up in lines.items()]
