"""Units: what fleet holds and where it placed them, and what systemd says of them on their machine."""

from __future__ import annotations

from pytest_bdd import parsers, then

from harness.drivers.cluster import Cluster
from harness.drivers.fleet import Placement
from harness.drivers.shell import OperatorShell
from harness.drivers.units import UnitFile, read_units
from harness.seams.wait import Waiter
from steps.phrases import phrase, require


@then(parsers.parse("every unit is {state} on a machine that its rules allow within {seconds:d} seconds"))
def units_are_placed(cluster: Cluster, unit_files: list[UnitFile], waiter: Waiter, state: str, seconds: int) -> None:
    names = [file.name for file in unit_files]

    def objections() -> list[Placement]:
        return [placement for placement in cluster.fleet.placements(names, state) if placement.objection]

    waiter.until(
        f"every unit is {state} where its rules allow it",
        objections,
        lambda found: not found,
        within=seconds,
        show=lambda found: [f"{placement.unit}: {placement.objection}" for placement in found],
        paste="fleetctl list-unit-files",
    )


@then(phrase('fleet holds every unit of "{one:Name}" and "{other:Name}" as its file says'))
def fleet_holds_units(cluster: Cluster, operator: OperatorShell, one: str, other: str) -> None:
    held = cluster.fleet.units()
    files = read_units(operator.cwd / one, operator.cwd / other)
    wrong = [f"{file.name}: not in fleet's registry" for file in files if file.name not in held]
    wrong += [line for file in files if file.name in held for line in file.differences(held[file.name].options)]
    require(not wrong, "fleet holds the units as they are written", expected="the same options", seen="; ".join(wrong))


@then(parsers.parse("every unit is active and running within {seconds:d} seconds"))
def units_run(cluster: Cluster, unit_files: list[UnitFile], waiter: Waiter, seconds: int) -> None:
    waiter.until(
        "every unit is active and running",
        lambda: cluster.units.now(file.name for file in unit_files),
        lambda states: bool(states) and all(state.runs for state in states.values()),
        within=seconds,
        show=lambda states: {name: state.short for name, state in states.items() if not state.runs},
        paste="fleetctl list-units",
    )


@then(parsers.parse("every unit keeps its main process and restart count for {seconds:d} seconds"))
def units_keep_running(cluster: Cluster, unit_files: list[UnitFile], waiter: Waiter, seconds: int) -> None:
    names = [file.name for file in unit_files]
    before = cluster.units.now(names)
    waiter.until(
        "every unit keeps its main process and restart count",
        lambda: cluster.units.now(names),
        lambda states: states == before and all(state.runs for state in states.values()),
        within=0,
        hold_for=seconds,
        show=lambda states: {name: state.short for name, state in states.items()},
        paste="fleetctl list-units",
    )


@then(phrase('unit "{unit:Name}" runs on machine "{machine:Name}" and on no other within {seconds:d} seconds'))
def unit_runs_only_on(cluster: Cluster, waiter: Waiter, unit: str, machine: str, seconds: int) -> None:
    waiter.until(
        f"{unit} runs on {machine} only",
        lambda: cluster.units.machines_running(unit),
        lambda found: found == [machine],
        within=seconds,
        paste="fleetctl list-units",
    )
