"""Machines that go and come: lost, taken out of service, added, replaced; and the units and names that follow."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import ExitStack

from pytest_bdd import parsers, then, when

from harness.drivers.cluster import Cluster
from harness.drivers.etcd import MEMBERS_AT_MOST, Registration
from harness.drivers.power import Power
from harness.drivers.shell import OperatorShell
from harness.drivers.terraform import Terraform
from harness.model import tfvars
from harness.runs.faults import Making
from harness.runs.watch import Watch
from harness.seams.wait import Waiter
from steps.phrases import SEEN, Change, Variables, phrase, require

KILL = "sudo systemctl kill --kill-whom=main --signal=KILL"
START_FLEET = "sudo systemctl start fleet.socket fleet.service"
SIGNAL_SSHD = "systemctl kill --kill-whom=main --signal"


@when(phrase('the machine of unit "{unit:Name}" is lost'), target_fixture="lost_machine")
def machine_of_unit_is_lost(cluster: Cluster, lose: Callable[[str], None], unit: str) -> str:
    machine = cluster.units.machine_running(unit)
    lose(machine)
    return machine


@when(phrase('machine "{machine:Name}" is lost for good'), target_fixture="lost_machine")
def machine_is_gone(power: Power, cluster: Cluster, change: Change, machine: str) -> str:
    change(f"{machine} is lost for good")
    power.gone(machine)
    cluster.machines.lose(machine)
    return machine


@when(phrase('machine "{machine:Name}" is lost'), target_fixture="lost_machine")
def machine_is_lost(lose: Callable[[str], None], machine: str) -> str:
    lose(machine)
    return machine


@when("the machine that the sites' names lead to is lost", target_fixture="lost_machine")
def named_machine_is_lost(cluster: Cluster, lose: Callable[[str], None]) -> str:
    machine = named_machine(cluster)
    lose(machine)
    return machine


def named_machine(cluster: Cluster) -> str:
    """The machine that the sites' names lead to."""
    address = cluster.name_server.lookup(next(iter(cluster.sites.values())).domain)
    led_to = [name for name in cluster.machines.names if cluster.machines.addresses[name] == address]
    require(led_to, "the sites' names lead to a machine", expected="a machine's address", seen=address or "no address")
    return led_to[0]


@when("the lost machine is switched on again")
def machine_is_switched_on(power: Power, lost_machine: str, change: Change) -> None:
    change(f"{lost_machine} is switched on again")
    power.on(lost_machine)


@then(parsers.parse("the lost machine answers over SSH again within {seconds:d} seconds"))
def lost_machine_answers(cluster: Cluster, watch: Watch, lost_machine: str, seconds: int) -> None:
    cluster.machines.regain(lost_machine)
    watch.changed()
    watch.until("every machine answers over SSH", SEEN, seconds)


@when(phrase('the machine of unit "{unit:Name}" is taken out of service'), target_fixture="machine_out_of_service")
def machine_is_taken_out(cluster: Cluster, change: Change, put_back: ExitStack, making: Making, unit: str) -> str:
    """fleet leaves it in order: it stops the machine's units and gives them to others."""
    machine = cluster.units.machine_running(unit)
    change(f"{machine} is taken out of service")
    put_back.enter_context(making([("system-unit-runs", f"fleet on {machine}")]))
    put_back.callback(cluster.machines.run, machine, START_FLEET)
    cluster.machines.run(machine, "sudo systemctl stop fleet.service")
    cluster.machines.lose(machine)
    return machine


@when(phrase('"{daemon:Name}" is killed on the machine of unit "{unit:Name}"'))
def daemon_is_killed(cluster: Cluster, change: Change, daemon: str, unit: str) -> None:
    machine = cluster.units.machine_running(unit)
    change(f"{daemon} is killed on {machine}")
    cluster.machines.run(machine, f"{KILL} {shlex.quote(daemon)}")


@when(phrase('"{daemon:Name}" is killed {number:d} times, whenever it is up, on the machine of unit "{unit:Name}"'))
def daemon_is_killed_again(cluster: Cluster, change: Change, daemon: str, number: int, unit: str) -> None:
    machine, name = cluster.units.machine_running(unit), shlex.quote(daemon)
    change(f"{daemon} is killed {number} times on {machine}")
    up = f"timeout 20 sh -c 'until systemctl is-active --quiet {name}; do sleep 0.1; done'"
    cluster.machines.run(machine, " && ".join([f"{up} && {KILL} {name} && sleep 0.2"] * number))


@when(phrase('sshd of the machine of unit "{unit:Name}" hangs'))
def sshd_hangs(cluster: Cluster, change: Change, put_back: ExitStack, unit: str) -> None:
    """It takes connections and says nothing, as where memory or disks are at their end; those that are kept go on."""
    machine = cluster.units.machine_running(unit)
    change(f"sshd of {machine} hangs")
    put_back.callback(cluster.machines.run, machine, f"sudo {SIGNAL_SSHD}=CONT ssh.service")
    # nobody would get in to mend it: it ends by itself, too
    mend = f"sudo systemd-run --quiet sh -c {shlex.quote(f'sleep 120; {SIGNAL_SSHD}=CONT ssh.service')}"
    cluster.machines.run(machine, f"{mend} && sudo {SIGNAL_SSHD}=STOP ssh.service")


@when("that machine is put into service again")
def machine_is_put_back(cluster: Cluster, machine_out_of_service: str, change: Change) -> None:
    change(f"{machine_out_of_service} is put into service again")
    cluster.machines.regain(machine_out_of_service)
    cluster.machines.run(machine_out_of_service, START_FLEET)


@then(phrase('unit "{unit:Name}" runs on {number:Machines} within {seconds:d} seconds'))
def unit_runs_on(cluster: Cluster, waiter: Waiter, unit: str, number: int, seconds: int) -> None:
    waiter.until(
        f"{unit} runs on {number} machine(s)",
        lambda: cluster.units.machines_running(unit),
        lambda found: len(found) == number,
        within=seconds,
        paste="fleetctl list-units",
    )


@when(parsers.parse("the operator raises the number of machines by {number:d}"))
def operator_raises(operator: OperatorShell, variables: Variables, number: int) -> None:
    _set_machines(operator, variables()["machines"] + number)


@when(parsers.parse("the operator lowers the number of machines by {number:d}"))
def operator_lowers(operator: OperatorShell, variables: Variables, number: int) -> None:
    _set_machines(operator, variables()["machines"] - number)


@when("the operator lowers the number of machines below that of etcd's members")
def operator_lowers_too_far(operator: OperatorShell, variables: Variables, put_back: ExitStack) -> None:
    before = variables()["machines"]
    put_back.callback(_set_machines, operator, before)
    _set_machines(operator, min(before, MEMBERS_AT_MOST) - 1)


@when("the operator puts the number of machines back")
def operator_puts_back(put_back: ExitStack) -> None:
    put_back.close()


def _set_machines(operator: OperatorShell, number: int) -> None:
    operator.edit(tfvars.FILE, lambda text: tfvars.set_number(text, "machines", number))


@then(phrase('plan "{plan:Name}" makes exactly {number:Made}'))
def plan_makes_number(terraform: Terraform, plan: str, number: int) -> None:
    seen = terraform.plan(plan).made
    require(len(seen) == number, "the plan makes what was lost or added", expected=f"{number} machine(s)", seen=seen)


@then(phrase('plan "{plan:Name}" destroys exactly {number:d} machine and makes none'))
def plan_destroys_number(terraform: Terraform, plan: str, number: int) -> None:
    seen = terraform.plan(plan)
    require(
        len(seen.destroyed) == number and not seen.made,
        "the plan destroys what was taken out",
        expected=f"{number} machine destroyed",
        seen=f"made {seen.made}, destroyed {seen.destroyed}",
    )


@then(parsers.parse("the cluster has the etcd members that the discovery URL is for, {limit:d} at most"))
def members_are_those_of_url(cluster: Cluster, registration: Registration, limit: int) -> None:
    seen = len(cluster.etcd.members())
    require(seen == registration.size <= limit, "etcd's members are all there", expected=registration.size, seen=seen)


@then(parsers.parse("the sites' names lead to one entry point of the cluster within {seconds:d} seconds"))
def names_lead_to_machine(watch: Watch, seconds: int) -> None:
    """One that is counted: a machine that was lost is none."""
    watch.until("the sites' names lead to one entry point of the cluster", ("name-leads",), seconds)
