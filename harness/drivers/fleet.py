"""fleet, asked through its HTTP API (/fleet/v1) on the entry point's socket, over the machines' seam.

The API and not fleetctl's tables: fleetctl exits 0 for unknown commands, unknown units and unknown flags, and
`launched` only means that fleet called start (fleetctl v1.0.0).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.drivers.machines import Machines
from harness.errors import AnswerNotUnderstood, CommandFailed
from harness.model.placement import Neighbour, Requirements, objection
from harness.seams.wait import NotAnswering

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

    @functools.cached_property
    def requirements(self) -> Requirements:
        return Requirements.of(self.name, self.options)

    @property
    def is_global(self) -> bool:
        """One copy on every machine that its rules allow."""
        return self.requirements.is_global

    def allows(self, machine: FleetMachine) -> bool:
        """Whether MachineID and MachineMetadata allow this machine."""
        return self.requirements.allow(machine.id, machine.metadata)


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
        """Raises NotAnswering while the API does not answer."""
        try:
            return self._machines.run(self._machines.entry_point, f"{API}/{what}")
        except CommandFailed as failed:
            if failed.status_seen in (7, 22, 28, 56):  # curl: cannot connect, HTTP 503 without etcd, time-out, reset
                raise NotAnswering.of(failed) from failed
            raise

    def machines(self) -> list[FleetMachine]:
        """What fleet lists; empty while its API does not answer."""
        try:
            return self._get("machines", FleetMachine.read)
        except NotAnswering:
            return []

    def units(self) -> dict[str, Unit]:
        """The registry: unit name -> unit. Raises NotAnswering while fleet's API does not answer, and
        AnswerNotUnderstood."""
        return {unit.name: unit for unit in self._get("units", Unit.read)}

    def states(self) -> dict[str, set[str]]:
        """Unit name -> ids of the machines that publish a systemd state of it."""
        states: dict[str, set[str]] = {}
        for name, machine_id in self._get("state", lambda item: (item["name"], item["machineID"])):
            states.setdefault(name, set()).add(machine_id)
        return states

    def placements(self, names: Iterable[str], state: str) -> list[Placement]:
        """Where each of these units is, and what speaks against it there. What speaks against a unit is also that it is
        on no machine, or in another state than `state` (loaded or launched; "" for the unit's own desired state)."""
        units, states = self.units(), self.states()
        machines = {machine.id: machine for machine in self.machines()}
        cluster = _Cluster(units, states, machines)
        placements = []
        for name in sorted(names):
            unit = units.get(name)
            if unit is None:
                placements.append(Placement(name, "", "not in fleet's registry"))
                continue
            for machine_id in sorted(cluster.where(unit)) or [""]:
                machine = machines.get(machine_id)
                objection = cluster.objection(unit, machine, state or unit.desired)
                placements.append(Placement(name, machine.name if machine else "", objection))
        return placements


@dataclass(frozen=True)
class _Cluster:
    """What fleet says at one moment: its registry, who reports a state of which unit, its machines by id."""

    units: Mapping[str, Unit]
    states: Mapping[str, set[str]]
    machines: Mapping[str, FleetMachine]

    def where(self, unit: Unit) -> set[str]:
        """Ids of the machines that a unit is on: of a global one those that report it."""
        return self.states.get(unit.name, set()) if unit.is_global else {unit.machine_id} - {""}

    def beside(self, unit: Unit, machine_id: str) -> list[Neighbour]:
        """The other units that fleet has on this machine."""
        others = (other for other in self.units.values() if other.name != unit.name and other.desired != "inactive")
        return [Neighbour(it.name, it.requirements) for it in others if machine_id in self.where(it)]

    def able(self, unit: Unit) -> set[str]:
        """Ids of the machines that may run it, as the others are placed now."""
        here = Neighbour(unit.name, unit.requirements)
        return {
            machine.id
            for machine in self.machines.values()
            if unit.allows(machine) and not objection(here, self.beside(unit, machine.id))
        }

    def objection(self, unit: Unit, machine: FleetMachine | None, wanted: str) -> str:
        """What speaks against a unit on this machine (None: on none that is known)."""
        unknown = [peer for peer in unit.requirements.peers if peer not in self.units]
        if unknown:
            return f"MachineOf {unknown[0]}, which fleet does not know: it can be placed nowhere"
        if machine is None:
            on = bool(self.where(unit))
            return "no machine of the cluster" if on else f"on no machine ({len(self.able(unit))} would be allowed)"
        if not unit.allows(machine):
            return "its MachineID or MachineMetadata forbids this machine"
        beside = objection(Neighbour(unit.name, unit.requirements), self.beside(unit, machine.id))
        if unit.is_global and not beside and (missing := self.able(unit) - self.where(unit)):
            able = len(self.able(unit))
            return f"global, but on {able - len(missing)} of {able} machines"
        # the registry keeps no state of a global unit's copies
        if unit.current != wanted and not unit.is_global:
            return f"state is {unit.current or 'unknown'}, not {wanted}"
        reporting = self.states.get(unit.name, set())
        if machine.id not in reporting:
            return "the machine reports no state of it"
        # a machine that fleet took for lost and that came back: until it has stopped its copy, two run
        if len(reporting) > 1 and not unit.is_global:
            return f"{len(reporting)} machines report a state of it"
        return beside
