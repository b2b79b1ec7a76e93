"""Power and network of machines: frozen, without power all at once, and cut off from each other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from pytest_bdd import parsers, then, when

from harness.drivers.cluster import Cluster
from harness.drivers.power import Power
from harness.seams.wait import Waiter
from steps.machines import named_machine
from steps.phrases import Change, phrase, require

Injected = list[tuple[str, str]]


# -- power ------------------------------------------------------------------------------------------------------------


@when(phrase('the machine of unit "{unit:Name}" freezes'), target_fixture="lost_machine")
def machine_of_unit_freezes(cluster: Cluster, freeze: Callable[[str], None], unit: str) -> str:
    machine = cluster.units.machine_running(unit)
    freeze(machine)
    return machine


@when("the machine that the sites' names lead to freezes", target_fixture="lost_machine")
def named_machine_freezes(cluster: Cluster, freeze: Callable[[str], None]) -> str:
    machine = named_machine(cluster)
    freeze(machine)
    return machine


@when("the frozen machine goes on")
def frozen_machine_goes_on(power: Power, cluster: Cluster, lost_machine: str, change: Change) -> None:
    change(f"{lost_machine} goes on")
    power.thaw(lost_machine)
    cluster.machines.regain(lost_machine)


@when("every machine loses power", target_fixture="lost_machines")
def every_machine_loses_power(cluster: Cluster, power: Power, change: Change, put_back: ExitStack) -> list[str]:
    machines = list(cluster.machines.names)
    change("every machine loses power")
    for name in machines:
        put_back.callback(power.on, name)
    cluster.machines.on_all(power.off)
    for name in machines:
        cluster.machines.lose(name)
    return machines


@when(parsers.parse("the machines are switched on, the last one first, {seconds:d} seconds apart"))
def machines_are_switched_on(
    power: Power, cluster: Cluster, waiter: Waiter, lost_machines: list[str], change: Change, seconds: int
) -> None:
    _switched_on(power, cluster, waiter, lost_machines, change, seconds)


@when(
    phrase('the machines but "{machine:Name}" are switched on, the last one first, {seconds:d} seconds apart'),
    target_fixture="lost_machine",
)
def others_are_switched_on(
    power: Power, cluster: Cluster, waiter: Waiter, lost_machines: list[str], change: Change, machine: str, seconds: int
) -> str:
    _switched_on(power, cluster, waiter, [name for name in lost_machines if name != machine], change, seconds)
    return machine


def _switched_on(
    power: Power, cluster: Cluster, waiter: Waiter, machines: list[str], change: Change, seconds: int
) -> None:
    change("machines are switched on")
    for number, name in enumerate(reversed(machines)):
        if number:
            waiter.until(f"{seconds} s pass", lambda: True, bool, within=1, hold_for=seconds)
        power.on(name)
        cluster.machines.regain(name)


# -- network ----------------------------------------------------------------------------------------------------------


@then(phrase('the machine whose network is broken still serves site "{site:Name}"'))
def cut_machine_serves(cluster: Cluster, injected: Injected, site: str) -> None:
    address = cluster.machines.addresses[_broken(injected)]
    expected = cluster.contents.deployed_last(site).version
    page = cluster.site_at(site, address).fetch("/version.txt")
    seen = page.text.strip() if page.status == 200 else f"status {page.status}"
    require(seen == expected, f"{site} is served where it runs", expected=expected, seen=seen)


def _broken(injected: Injected) -> str:
    """The machine of the fault, which is named last in what it is to be named as."""
    _, subject = injected[0]
    return subject.split()[-1]
