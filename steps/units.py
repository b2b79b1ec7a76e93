"""Units: what fleet holds and where it placed them, and what systemd says of them on their machine."""

from __future__ import annotations

from pytest_bdd import parsers, then

from harness.drivers.fleet import Fleet, Placement
from harness.drivers.shell import OperatorShell
from harness.drivers.units import UnitFile, UnitStates, read_units
from harness.seams.wait import Waiter
from steps.phrases import phrase, require


@then(parsers.parse("every unit is {state} on a machine that its rules allow within {seconds:d} seconds"))
def units_are_placed(fleet: Fleet, unit_files: list[UnitFile], waiter: Waiter, state: str, seconds: int) -> None:
    names = [file.name for file in unit_files]

    def objections() -> list[Placement]:
        return [placement for placement in fleet.placements(names, state) if placement.objection]

    waiter.until(
        f"every unit is {state} where its rules allow it",
        objections,
        lambda found: not found,
        within=seconds,
        show=lambda found: [f"{placement.unit}: {placement.objection}" for placement in found],
        paste="fleetctl list-unit-files",
    )


@then(phrase('fleet holds every unit of "{one:Name}" and "{other:Name}" as its file says'))
def fleet_holds_units(fleet: Fleet, operator: OperatorShell, one: str, other: str) -> None:
    held = fleet.units()
    files = read_units(operator.cwd / one, operator.cwd / other)
    wrong = [f"{file.name}: not in fleet's registry" for file in files if file.name not in held]
    wrong += [line for file in files if file.name in held for line in file.differences(held[file.name].options)]
    require(not wrong, "fleet holds the units as they are written", expected="the same options", seen="; ".join(wrong))


@then(parsers.parse("every unit is active and running within {seconds:d} seconds"))
def units_run(unit_states: UnitStates, waiter: Waiter, seconds: int) -> None:
    waiter.until(
        "every unit is active and running",
        unit_states.now,
        lambda states: bool(states) and all(state.runs for state in states.values()),
        within=seconds,
        show=lambda states: {name: state.short for name, state in states.items() if not state.runs},
        paste="fleetctl list-units",
    )


@then(parsers.parse("every unit keeps its main process and restart count for {seconds:d} seconds"))
def units_keep_running(unit_states: UnitStates, waiter: Waiter, seconds: int) -> None:
    before = unit_states.now()
    waiter.until(
        "every unit keeps its main process and restart count",
        unit_states.now,
        lambda states: states == before and all(state.runs for state in states.values()),
        within=0,
        hold_for=seconds,
        show=lambda states: {name: state.short for name, state in states.items()},
        paste="fleetctl list-units",
    )


@then(phrase('unit "{unit:Name}" runs on machine "{machine:Name}" and on no other within {seconds:d} seconds'))
def unit_runs_only_on(unit_states: UnitStates, waiter: Waiter, unit: str, machine: str, seconds: int) -> None:
    waiter.until(
        f"{unit} runs on {machine} only",
        lambda: unit_states.machines_running(unit),
        lambda found: found == [machine],
        within=seconds,
        paste="fleetctl list-units",
    )
