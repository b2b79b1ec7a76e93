"""Units: what fleet holds and where it placed them, and what systemd says of them on their machine."""

from __future__ import annotations

from pytest_bdd import parsers, then

from harness.drivers.cluster import Cluster
from harness.runs.watch import Watch
from harness.seams.wait import Waiter
from steps.phrases import SEEN, phrase


@then(phrase('unit "{unit:Name}" runs on machine "{machine:Name}" and on no other within {seconds:d} seconds'))
def unit_runs_only_on(cluster: Cluster, waiter: Waiter, unit: str, machine: str, seconds: int) -> None:
    waiter.until(
        f"{unit} runs on {machine} only",
        lambda: cluster.units.machines_running(unit),
        lambda found: found == [machine],
        within=seconds,
        paste="fleetctl list-units",
    )


@then(parsers.parse("every unit is {state} on a machine that its rules allow within {seconds:d} seconds"))
def units_are_placed(watch: Watch, state: str, seconds: int) -> None:
    rules = ("unit-is-held", "unit-is-wanted", "unit-is-placed", "unit-is-reported")
    watch.until(f"every unit is {state} where its rules allow it", rules, seconds)


@then(parsers.parse("fleet holds every unit as its file says within {seconds:d} seconds"))
def fleet_holds_units(watch: Watch, seconds: int) -> None:
    watch.until("fleet holds the units as they are written", ("unit-is-held", "unit-is-as-written"), seconds)


@then(parsers.parse("every unit is active and running within {seconds:d} seconds"))
def units_run(watch: Watch, seconds: int) -> None:
    watch.until(
        "every unit is active and running", ("unit-is-held", "unit-is-wanted", "unit-runs", "container-runs"), seconds
    )


@then(parsers.parse("every unit keeps its main process and restart count for {seconds:d} seconds"))
def units_keep_running(watch: Watch, seconds: int) -> None:
    watch.holds(
        "every unit keeps its main process",
        ("unit-is-held", "unit-is-wanted", "unit-runs", "unit-keeps-running"),
        seconds,
    )


@then(parsers.parse("no unit runs where fleet does not have it within {seconds:d} seconds"))
def units_run_nowhere_else(watch: Watch, seconds: int) -> None:
    watch.until("no unit runs where fleet does not have it", (*SEEN, "unit-is-held", "unit-runs-nowhere-else"), seconds)
