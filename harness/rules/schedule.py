"""Rules of what fleet does with units: holds them as they are written, wants them, and places them."""

from __future__ import annotations

from harness.model.placement import Neighbour, Requirements, objection
from harness.model.unit_file import differences
from harness.rules.finding import ALL, FLEET_LAG, Found, Subject, Wrong, rule
from harness.snapshot.data import Fleet, FleetUnit, Snapshot

Options = tuple[tuple[str, str, str], ...]
FORBIDDEN = "its MachineID or MachineMetadata forbids this machine"


def unit_of(name: str, machine: str = "") -> Subject:
    return Subject("unit", name, machine)


@rule("schedule", "fleet holds every unit", needs=("fleet-units",), explains=(ALL,))
def unit_is_held(now: Snapshot) -> Found:
    if now.fleet is None and now.intended.units:
        seen, paste = "no machine tells it", "fleetctl list-unit-files"
        absent = ("fleet-units",)
        yield Wrong(Subject("fleet"), "its registry", seen, paste=paste, untold=not now.answering, absent=absent)
    for name in now.intended.units:
        if now.fleet and name not in now.fleet.units:
            paste = "fleetctl load units/*.service units/app/*.service"
            yield Wrong(unit_of(name), "in fleet's registry", "not there", paste=paste, follows=())


@rule(
    "schedule",
    "fleet holds every unit as its file says",
    needs=("fleet-units",),
    explains=("unit-text-is-loaded", "unit-restarts-for-ever", "unit-keeps-running"),
)
def unit_is_as_written(now: Snapshot) -> Found:
    for name, held in (now.fleet.units if now.fleet else {}).items():
        written = now.intended.units.get(name)
        if written and held.options is not None:
            seen = "; ".join(differences(written.options, held.options)) or "the same options in another order"
            yield Wrong(unit_of(name), "its file's options", seen, paste=f"fleetctl cat {name}", follows=())


@rule(
    "schedule",
    "fleet is told to have every unit loaded, and to run it once it was started",
    needs=("fleet-units",),
    explains=(ALL,),
)
def unit_is_wanted(now: Snapshot) -> Found:
    enough = ("launched",) if now.intended.started else ("loaded", "launched")
    for name in now.intended.units:
        held = now.fleet.units.get(name) if now.fleet else None
        if held and held.desired not in enough:
            paste = f"fleetctl {'start --no-block' if now.intended.started else 'load'} {name}"
            seen = f"fleet is told to have it {held.desired or 'unknown'}"
            yield Wrong(unit_of(name), enough[0], seen, paste=paste, follows=())


@rule(
    "schedule",
    "every unit is on a machine that its rules allow",
    needs=("fleet-units",),
    explains=(ALL, "unit-is-reported", "unit-runs"),
    lag=FLEET_LAG,
)
def unit_is_placed(now: Snapshot) -> Found:
    if now.fleet is None:
        return
    placing = Placing(now)
    for name in sorted(set(now.intended.units) & set(now.fleet.units)):
        yield from placing.objections(name)


@rule(
    "schedule",
    "every unit is in the state that fleet wants, and one machine reports it",
    needs=("fleet-units",),
    lag=FLEET_LAG,
)
def unit_is_reported(now: Snapshot) -> Found:
    if now.fleet is None:
        return
    for name in sorted(set(now.intended.units) & set(now.fleet.units)):
        held, reporting = now.fleet.units[name], now.fleet.states.get(name, ())
        if Requirements.of(name, options_of(now, name)).is_global or held.desired == "inactive" or not held.machine_id:
            continue
        machine = named(now, held.machine_id)
        paste = f"fleetctl list-units | grep {name}"
        if held.current != held.desired:
            seen = f"its state is {held.current or 'unknown'}"
            yield Wrong(unit_of(name, machine), held.desired, seen, paste=paste)
        elif held.machine_id not in reporting:
            yield Wrong(unit_of(name, machine), "reported by its machine", "it reports no state of it", paste=paste)
        elif len(reporting) > 1:
            names = ", ".join(named(now, machine_id) for machine_id in reporting)
            yield Wrong(unit_of(name, machine), "reported by its machine only", f"{names} report it", paste=paste)


def options_of(now: Snapshot, name: str) -> Options:
    """The options of a unit as fleet holds them; those of its file where it holds none."""
    held = now.fleet.units.get(name) if now.fleet else None
    if held and held.options is not None:
        return held.options
    return now.intended.units[name].options if name in now.intended.units else ()


def named(now: Snapshot, machine_id: str) -> str:
    """A machine that fleet knows by its id: its name, also of one that is silent while fleet lists it; else its id,
    shortened."""
    listed = now.fleet.machines.get(machine_id) if now.fleet else None
    address = listed.address if listed else ""
    by_address = next((name for name, its in now.intended.machines.items() if its == address), machine_id[:8])
    return now.names.get(machine_id, by_address)


def places(now: Snapshot, name: str) -> list[str]:
    """Names of the machines that a unit is to be on, as fleet has it; silent ones too."""
    held = now.fleet.units.get(name) if now.fleet else None
    if held is None:
        return []
    if not Requirements.of(name, options_of(now, name)).is_global:
        found = [named(now, held.machine_id)] if held.machine_id else []
    else:
        found = [named(now, machine_id) for machine_id in Placing(now).able(name)]
    return [name for name in found if name in now.machines]


class Placing:
    """Where fleet may have a unit, and where it has it. Machines go by their ids."""

    def __init__(self, now: Snapshot) -> None:
        assert now.fleet is not None
        self._now = now
        self._fleet: Fleet = now.fleet
        self._rules = {name: Requirements.of(name, options_of(now, name)) for name in now.fleet.units}

    def objections(self, name: str) -> Found:
        """What speaks against a unit where it is, or against its being nowhere."""
        rules, unit = self._rules[name], self._fleet.units[name]
        paste = f"fleetctl list-unit-files | grep {name}"
        unknown = [peer for peer in rules.peers if peer not in self._fleet.units]
        if unknown:
            seen = f"MachineOf {unknown[0]}, which fleet does not know: it can be placed nowhere"
            yield Wrong(unit_of(name), "on a machine", seen, paste=paste)
            return
        if unit.desired == "inactive":
            return
        here, able = self.where(name, unit), self.able(name)
        if rules.is_global:
            for machine_id in sorted(able - here):
                machine = named(self._now, machine_id)
                yield Wrong(
                    unit_of(name, machine),
                    "on every machine that its rules allow",
                    "this machine reports none",
                    paste=paste,
                )
        elif not here:
            yield Wrong(unit_of(name), "on a machine", f"on none ({len(able)} would be allowed)", paste=paste)
        for machine_id in sorted(here):
            against = self._against(name, machine_id)
            if against:
                machine = named(self._now, machine_id)
                subject, follows = unit_of(name, machine), ("fleet-metadata",) if against == FORBIDDEN else None
                yield Wrong(subject, "where its rules allow it", against, paste=paste, follows=follows)

    def where(self, name: str, unit: FleetUnit) -> set[str]:
        """Ids of the machines that it is on: of a global one those that report it."""
        if self._rules[name].is_global:
            return set(self._fleet.states.get(name, ())) & set(self._fleet.machines)
        return {unit.machine_id} - {""}

    def able(self, name: str) -> set[str]:
        """Ids of the machines that may run it, as the others are placed now."""
        return {machine_id for machine_id in self._fleet.machines if not self._against(name, machine_id)}

    def _against(self, name: str, machine_id: str) -> str:
        machine = self._fleet.machines.get(machine_id)
        if machine is None:
            return "no machine of the cluster"
        if not self._rules[name].allow(machine_id, machine.metadata):
            return FORBIDDEN
        beside = [
            Neighbour(other, self._rules[other])
            for other, unit in self._fleet.units.items()
            if other != name and unit.desired != "inactive" and machine_id in self.where(other, unit)
        ]
        return objection(Neighbour(name, self._rules[name]), beside)
