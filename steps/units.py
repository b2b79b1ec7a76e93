"""Units: what fleet holds and where it placed them, and what systemd says of them on their machine."""

from __future__ import annotations

from contextlib import ExitStack

from pytest_bdd import given, parsers, then

from harness.drivers.cluster import Cluster
from harness.drivers.fleetctl import Fleetctl
from harness.drivers.units import UnitState
from harness.runs.watch import Watch
from harness.seams.wait import Waiter
from steps.phrases import SEEN, phrase, require


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


# A machine that fleet does not list is one that a global unit does not run on
RUNS = ("fleet-lists", "unit-is-held", "unit-is-wanted", "unit-runs")


@then(parsers.parse("every unit is active and running within {seconds:d} seconds"))
def units_run(watch: Watch, seconds: int) -> None:
    watch.until("every unit is active and running", (*RUNS, "container-runs"), seconds)


@then(parsers.parse("no unit runs where fleet does not have it within {seconds:d} seconds"))
def units_run_nowhere_else(watch: Watch, seconds: int) -> None:
    watch.until("no unit runs where fleet does not have it", (*SEEN, "unit-is-held", "unit-runs-nowhere-else"), seconds)


@given("the processes of all units are noted", target_fixture="processes")
def processes_are_noted(cluster: Cluster) -> dict[str, str]:
    seen = cluster.units.processes()
    require(seen, "units run", expected="their main processes", seen="none")
    return seen


@then(parsers.parse("every unit has the process that was noted, and no other began, for {seconds:d} seconds"))
def processes_are_the_same(cluster: Cluster, waiter: Waiter, processes: dict[str, str], seconds: int) -> None:
    waiter.until(
        "every unit has the process that was noted, and no other began",
        lambda: sorted(dict(cluster.units.processes().items() ^ processes.items())),
        lambda differ: not differ,
        within=10,
        hold_for=seconds,
        show=lambda differ: f"not so: {', '.join(differ)}" if differ else "all the same",
    )


# -- units of one scenario, or in trouble ----------------------------------------------------------------------------


@given(phrase('units "{one:Name}" and "{other:Name}" are there in this scenario only'))
def units_of_scenario(fleetctl: Fleetctl, put_back: ExitStack, one: str, other: str) -> None:
    seen = sorted({one, other} & fleetctl.units())
    require(not seen, "fleet has no such unit yet", expected="none", seen=seen, paste=f"fleetctl destroy {one} {other}")
    put_back.callback(fleetctl.destroy, one, other)


@then(phrase('systemd restarts unit "{unit:Name}" at least {number:d} times in {seconds:d} seconds'))
def unit_is_restarted(cluster: Cluster, waiter: Waiter, unit: str, number: int, seconds: int) -> None:
    seen = waiter.until(
        f"systemd has not given up on {unit}",
        lambda: cluster.units.states(unit),
        lambda found: len(found) == 1 and all(it.active != "failed" for it in found.values()),
        within=10,
        hold_for=seconds,
        paste=f"fleetctl status {unit}",
    )
    (state,) = seen.values()
    require(state.restarts >= number, f"systemd restarts {unit}", expected=f"{number} times", seen=state.restarts)


@then(phrase('unit "{unit:Name}" runs on no machine for {seconds:d} seconds'))
def unit_stays_dead(cluster: Cluster, waiter: Waiter, unit: str, seconds: int) -> None:
    waiter.until(
        f"{unit} runs on no machine",
        lambda: cluster.units.machines_running(unit),
        lambda found: not found,
        within=2,
        hold_for=seconds,
        paste=f"fleetctl status {unit}",
    )


@then(phrase('unit "{unit:Name}" on machine "{machine:Name}" says "{text:Name}" within {seconds:d} seconds'))
def unit_says(cluster: Cluster, waiter: Waiter, unit: str, machine: str, text: str, seconds: int) -> None:
    waiter.until(
        f"{unit} on {machine} says {text}",
        lambda: cluster.units.status(unit, machine),
        lambda said: text in said,
        within=seconds,
        paste=f"ssh -F ssh_config {machine} systemctl status {unit}",
    )


@then(phrase('systemd has given up on unit "{unit:Name}"'))
def unit_is_given_up(cluster: Cluster, unit: str) -> None:
    """With Restart=always, a unit is failed when systemd starts it no more."""
    seen = cluster.units.states(unit)
    require([it.active for it in seen.values()] == ["failed"], f"{unit} is dead", expected="failed", seen=seen)


@then(phrase('nothing is left of units "{one:Name}" and "{other:Name}" within {seconds:d} seconds'))
def units_are_gone(cluster: Cluster, fleetctl: Fleetctl, waiter: Waiter, one: str, other: str, seconds: int) -> None:
    def left() -> tuple[list[str], dict[str, UnitState]]:
        states = {f"{unit} on {name}": it for unit in (one, other) for name, it in cluster.units.states(unit).items()}
        # of a unit whose file is gone systemd remembers that it failed, until it is started again
        there = {unit: it for unit, it in states.items() if (it.load, it.active) != ("not-found", "failed")}
        return sorted({one, other} & fleetctl.units()), there

    waiter.until(
        f"fleet and the machines know nothing of {one} and {other}",
        left,
        lambda found: not any(found),
        within=seconds,
        paste="fleetctl list-unit-files",
    )
