"""The cluster drawn: what a snapshot shows, laid out for the template `drawing.html`. A pure function of the snapshot
and of the causes that were found in it.

A tile a machine, and a picture of the ways to each site. Where there are many machines a tile is small and says only
what is special. Lengths are units of the pictures' own coordinates, about a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.reports.marks import CAUSE, FOLLOWS, Item, Marks, Subject, Thing, of_unit
from harness.reports.ways import FEW, Way, place, ways
from harness.snapshot.data import APP_PORT, Machine, Snapshot, Unit
from harness.text import cut

ROLES = {"StateLeader": "etcd leader", "StateFollower": "etcd member"}
# A tile, large and small: its width, where its lines begin, their distance, what is below, characters of a line
LARGE, SMALL = (320, 88, 19, 6, 40), (168, 55, 14, -2, 23)
# Characters of which a part of a text still tells something
TELLING = 8
# Lines of a tile, at most
LINES_OF_LARGE, LINES_OF_SMALL = 24, 4


@dataclass(frozen=True)
class Line:
    """A line of a tile. `says` stands at its right end, as long as there is room."""

    glyph: str
    name: str
    says: str
    y: int


@dataclass(frozen=True)
class Tile:
    """A machine: what it is beside the others (`signs`), what runs on it, and what is wrong with it (`others` has what
    is none of these things)."""

    name: str
    address: str
    signs: tuple[str, ...]
    silent: str
    mark: str
    system: tuple[Thing, ...]
    units: tuple[Thing, ...]
    others: tuple[Thing, ...]
    lines: tuple[Line, ...] = ()
    height: int = 0

    @property
    def things(self) -> tuple[Thing, ...]:
        return (*self.system, *self.units, *self.others)

    @property
    def runs(self) -> list[str]:
        return [thing.words for thing in self.things if thing.on]

    @property
    def stands_still(self) -> list[str]:
        return [thing.words for thing in (*self.system, *self.units) if not thing.on]

    def marked(self, mark: str) -> list[str]:
        """What has this mark, in words."""
        own = [f"the machine{': ' * bool(self.silent)}{self.silent}"] if self.mark == mark else []
        return [*own, *(thing.words for thing in self.things if thing.mark == mark)]


@dataclass(frozen=True)
class Drawing:
    """A snapshot, laid out: its number, when it was taken, tiles, ways, and what is wrong with no machine (`whole`).

    Large tiles have one height; small ones have their own, and those that say most come first.
    """

    number: int
    asked: float
    tiles: tuple[Tile, ...]
    ways: tuple[Way, ...]
    whole: tuple[Thing, ...]
    small: bool
    width: int
    wrong: int


def draw(now: Snapshot, causes: Sequence[Item]) -> Drawing:
    marks = Marks(causes)
    small = len(now.intended.machines) > FEW
    width, top, step, bottom, room = SMALL if small else LARGE
    bare = [_tile(now, marks, name) for name in now.intended.machines]
    listed = [_small_lines(tile) if small else _large_lines(tile) for tile in bare]
    most = max(map(len, listed), default=0)
    tiles = []
    for tile, things in zip(bare, listed, strict=True):
        lines = [_line(thing, top + step * number, room) for number, thing in enumerate(things)]
        height = top + step * (len(lines) if small else most) + bottom
        tiles.append(replace(tile, lines=tuple(lines), height=height))
    if small:
        tiles.sort(key=lambda tile: -len(tile.lines))
    unknown = {subject[2] for subject in marks.subjects} - set(now.intended.machines)
    whole = [
        replace(thing, name=f"{thing.name} on {machine}") if machine else thing
        for machine in sorted(unknown)
        for thing in marks.left(machine, ())
    ]
    return Drawing(now.number, now.asked, tuple(tiles), ways(now, marks), tuple(whole), small, width, len(causes))


def _tile(now: Snapshot, marks: Marks, name: str) -> Tile:
    machine = now.machines.get(name)
    if machine is None:
        machine = Machine(asked=now.asked, seconds=0.0, silent="not looked at")
    system = dict(_system(machine, marks, name))
    units = {unit: _unit(now, machine, marks, unit, name) for unit in _units_here(now, machine, name)}
    shown = [*system, *(subject for unit in units for subject in of_unit(unit, name))]
    mark = marks.of(("machine", "", name))
    ordered = sorted(units.values(), key=lambda thing: (not thing.special, thing.name))
    return Tile(
        name, now.intended.machines[name], tuple(_signs(now, machine, name)), machine.silent, mark,
        tuple(system.values()), tuple(ordered), tuple(marks.left(name, shown)),
    )  # fmt: skip


def _signs(now: Snapshot, machine: Machine, name: str) -> Iterator[str]:
    """What a machine is beside the others."""
    address = now.intended.machines[name]
    if machine.etcd is not None:
        yield ROLES.get(machine.etcd.role, "etcd proxy")
    if address == now.intended.entry_point:
        yield "entry point"
    if address in (now.outside.names or {}).values():
        yield "names lead here"


def _system(machine: Machine, marks: Marks, name: str) -> Iterator[tuple[Subject, Thing]]:
    """What every machine's units stand on; of a silent one nobody knows."""
    on = {
        "docker": machine.containers is not None,
        "etcd": bool(machine.etcd and machine.etcd.healthy),
        "fleet": machine.fleet is not None,
    }
    for kind, runs in on.items():
        if not machine.silent:
            subject = (kind, "", name)
            yield subject, Thing(kind, "" if runs else "does not answer", runs, marks.of(subject))


def _units_here(now: Snapshot, machine: Machine, name: str) -> list[str]:
    """The units that fleet has on a machine, and the others of its registry that are not inactive there."""
    fleet = now.fleet
    known = {*now.intended.units, *(fleet.units if fleet else ())}
    here = {unit for unit, state in machine.units.items() if state.active != "inactive"}
    if fleet:
        ids = [it for it, listed in fleet.machines.items() if listed.address == now.intended.machines[name]]
        ids = [machine.machine_id] if machine.machine_id else ids
        here |= {unit for unit, held in fleet.units.items() if held.machine_id in ids}
        here |= {unit for unit, reporting in fleet.states.items() if set(reporting) & set(ids)}
    return sorted(known & here)


def _unit(now: Snapshot, machine: Machine, marks: Marks, unit: str, name: str) -> Thing:
    held = now.fleet.units.get(unit) if now.fleet else None
    state = machine.units.get(unit)
    says = "not seen" if machine.silent else _state(state)
    runs = state is not None and state.runs
    if runs:
        says = _does(now, machine, unit.removesuffix(".service"))
    # what is wrong with a unit wherever it runs is told of the whole
    mark = marks.of(*of_unit(unit, name)) or (FOLLOWS if marks.of(("unit", unit, "")) else "")
    return Thing(unit.removesuffix(".service"), says, runs, mark, bool(held and held.machine_id))


def _state(state: Unit | None) -> str:
    return "not there" if state is None else f"{state.active} ({state.sub})"


def _does(now: Snapshot, machine: Machine, unit: str) -> str:
    """Of a unit that runs: the port of an app, the servers of an ambassador, the sites of an entry point."""
    if unit == "entry":
        return ", ".join(sorted(machine.routes.values()))
    if unit.endswith("-dynamic-amb"):
        servers = machine.ambassadors.get(unit.removesuffix("-dynamic-amb"))
        if servers is None:
            return "no answer"
        if len(servers) == 1:
            ((address, state),) = servers.items()
            return f"{place(now, address)} {state}"
        return f"{sum(state == 'UP' for state in servers.values())} of {len(servers)} UP"
    container = (machine.containers or {}).get(unit.replace("@", "-"))
    ports = container.ports.get(APP_PORT, ()) if container else ()
    return ", ".join(f":{address.rpartition(':')[2]}" for address in ports)


def _large_lines(tile: Tile) -> list[Thing]:
    return _most([*tile.units, *tile.others], LINES_OF_LARGE)


def _small_lines(tile: Tile) -> list[Thing]:
    """What is wrong, the causes first, then what does not run, then what is not on every machine."""
    marked = [thing for thing in tile.things if thing.mark]
    plain = [thing for thing in tile.things if not thing.mark and (thing.special or not thing.on)]
    marked.sort(key=lambda thing: thing.mark != CAUSE)
    plain.sort(key=lambda thing: thing.on)
    return _most([*marked, *plain], LINES_OF_SMALL)


def _most(things: list[Thing], limit: int) -> list[Thing]:
    if len(things) <= limit:
        return things
    return [*things[: limit - 1], Thing(f"and {len(things) - limit + 1} more", "", False, "more")]


def _line(thing: Thing, y: int, room: int) -> Line:
    name = cut(thing.name, room)
    left = room - len(name) - 1
    return Line(thing.glyph, name, cut(thing.says, left) if left >= min(len(thing.says), TELLING) else "", y)
