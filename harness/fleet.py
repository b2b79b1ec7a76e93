"""fleet, asked through its HTTP API (/fleet/v1) on the entry point's socket, over the machines' seam.

The API and not fleetctl's tables: fleetctl exits 0 for unknown commands, unknown units and unknown flags, and
`launched` only means that fleet called start (fleetctl v1.0.0).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from harness.errors import AnswerNotUnderstood, CommandFailed
from harness.machines import Machines
from harness.wait import Silent

T = TypeVar("T")

API = "curl --silent --show-error --fail --max-time 10 --unix-socket /run/fleet.sock http://fleet/fleet/v1"


@dataclass(frozen=True)
class FleetMachine:
    """A machine as fleet lists it."""

    id: str
    address: str
    metadata: Mapping[str, str]

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> FleetMachine:
        return cls(item["id"], item.get("primaryIP", ""), item.get("metadata") or {})

    @property
    def name(self) -> str:
        return self.metadata.get("name", self.id[:8])


@dataclass(frozen=True)
class Unit:
    """A unit in fleet's registry: desired and current state are each inactive, loaded or launched."""

    name: str
    desired: str
    current: str
    machine_id: str
    options: tuple[tuple[str, str, str], ...]

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> Unit:
        return cls(
            item["name"],
            item.get("desiredState", ""),
            item.get("currentState", ""),
            item.get("machineID", ""),
            tuple((option["section"], option["name"], option["value"]) for option in item.get("options") or ()),
        )

    def fleet_options(self, name: str) -> list[str]:
        """Values of an [X-Fleet] option, with the quotes and blanks that separate several of a line taken away."""
        values = [value for section, key, value in self.options if section == "X-Fleet" and key == name]
        return [word.strip('"') for value in values for word in value.split()]

    @property
    def is_global(self) -> bool:
        """One copy on every machine; the last line wins, and fleet takes several words for true."""
        return (self.fleet_options("Global") or ["false"])[-1].lower() in ("true", "yes", "1", "on", "t")

    def allows(self, machine: FleetMachine) -> bool:
        """Whether MachineID and MachineMetadata allow this machine: different keys must all match, of the same key
        one (fleet, Documentation/unit-files-and-scheduling.md)."""
        ids = self.fleet_options("MachineID")
        if ids and not {machine.id, machine.id[:8]} & set(ids):
            return False
        wanted: dict[str, set[str]] = {}
        for pair in self.fleet_options("MachineMetadata"):
            key, _, value = pair.partition("=")
            wanted.setdefault(key, set()).add(value)
        return all(machine.metadata.get(key) in values for key, values in wanted.items())


@dataclass(frozen=True)
class Placement:
    """Where a unit is, and what speaks against it there ("" when its rules allow it)."""

    unit: str
    machine: str
    objection: str


class Fleet:
    """The cluster's fleet."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    def _get(self, collection: str, make: Callable[[dict[str, Any]], T]) -> list[T]:
        """All pages of a collection, each item made into what the caller knows."""
        items: list[T] = []
        token = ""
        while True:
            query = f"?nextPageToken={token}" if token else ""
            answer = self._ask(f"{collection}'{query}'")
            try:
                page = json.loads(answer)
                items += [make(item) for item in page.get({"state": "states"}.get(collection, collection), [])]
                token = page.get("nextPageToken", "")
            except (ValueError, AttributeError, TypeError, KeyError) as wrong:
                raise AnswerNotUnderstood(f"fleet API /{collection}", answer, repr(wrong)) from wrong
            if not token:
                return items

    def _ask(self, what: str) -> str:
        """Raises Silent while the API does not answer."""
        try:
            return self._machines.run(self._machines.entry_point, f"{API}/{what}")
        except CommandFailed as failed:
            if failed.status_seen in (7, 22, 28, 56):  # curl: cannot connect, HTTP 503 without etcd, time-out, reset
                raise Silent.of(failed) from failed
            raise

    def machines(self) -> list[FleetMachine]:
        """What fleet lists; empty while its API does not answer."""
        try:
            return self._get("machines", FleetMachine.read)
        except Silent:
            return []

    def units(self) -> dict[str, Unit]:
        """The registry: unit name -> unit."""
        return {unit.name: unit for unit in self._get("units", Unit.read)}

    def states(self) -> dict[str, set[str]]:
        """Unit name -> ids of the machines that publish a systemd state of it."""
        states: dict[str, set[str]] = {}
        for name, machine_id in self._get("state", lambda item: (item["name"], item["machineID"])):
            states.setdefault(name, set()).add(machine_id)
        return states

    def placements(self, names: Iterable[str], state: str) -> list[Placement]:
        """Where each of these units is. A unit that is not placed, or not in `state` (loaded, launched; "" for the one
        that is desired of it), has the objection that says so."""
        units, states = self.units(), self.states()
        machines = {machine.id: machine for machine in self.machines()}
        placements = []
        for name in sorted(names):
            unit = units.get(name)
            if unit is None:
                placements.append(Placement(name, "", "not in fleet's registry"))
                continue
            allowed = {machine.id for machine in machines.values() if unit.allows(machine)}
            on = states.get(name, set()) if unit.is_global else {unit.machine_id} - {""}
            for machine_id in sorted(on) or [""]:
                machine = machines.get(machine_id)
                placements.append(
                    Placement(
                        name,
                        machine.name if machine else "",
                        _objection(unit, machine, state or unit.desired, on, allowed, states, units),
                    )
                )
        return placements


def _objection(
    unit: Unit,
    machine: FleetMachine | None,
    wanted: str,
    on: set[str],
    allowed: set[str],
    states: Mapping[str, set[str]],
    units: Mapping[str, Unit],
) -> str:
    if machine is None:
        return "no machine of the cluster" if on else f"on no machine ({len(allowed)} would be allowed)"
    if machine.id not in allowed:
        return "its MachineID or MachineMetadata forbids this machine"
    if unit.is_global and on != allowed:
        return f"global, but on {len(on)} of {len(allowed)} machines"
    # the registry keeps no state of a global unit's copies
    if unit.current != wanted and not unit.is_global:
        return f"state is {unit.current or 'unknown'}, not {wanted}"
    reporting = states.get(unit.name, set())
    if machine.id not in reporting:
        return "the machine reports no state of it"
    # a machine that fleet took for lost and that came back: until it has stopped its copy, two run
    if len(reporting) > 1 and not unit.is_global:
        return f"{len(reporting)} machines report a state of it"
    for followed in unit.fleet_options("MachineOf"):
        followed = followed.replace("%i", unit.name.partition("@")[2].rpartition(".")[0])
        if followed in units and units[followed].machine_id != machine.id:
            return f"not where {followed} is"
    for other in units.values():
        conflicts = any(fnmatchcase(other.name, pattern) for pattern in unit.fleet_options("Conflicts"))
        if conflicts and other.name != unit.name and other.machine_id == machine.id:
            return f"conflicts with {other.name}, which is there too"
    return ""
