"""The infrastructure: Terraform's plans, and the machines they make."""

from __future__ import annotations

from collections import Counter

from pytest_bdd import given, parsers, then

from harness.drivers.cluster import Cluster
from harness.drivers.shell import OperatorShell
from harness.drivers.terraform import Terraform
from harness.seams.wait import Waiter
from steps.phrases import Variables, phrase, require


@then(phrase('plan "{plan:Name}" makes exactly the machines that the variables name'))
def plan_makes_machines(terraform: Terraform, variables: Variables, plan: str) -> None:
    expected, seen = variables()["machines"], terraform.plan(plan).made
    require(
        len(seen) == len(set(seen)) == expected,
        "the plan makes the machines",
        expected=f"{expected} machines",
        seen=seen,
        where=plan,
    )


@then(phrase('plan "{plan:Name}" destroys nothing'))
def plan_destroys_nothing(terraform: Terraform, plan: str) -> None:
    seen = terraform.plan(plan).destroyed
    require(not seen, "the plan destroys nothing", expected="nothing destroyed", seen=seen, where=plan)


@then(phrase('plan "{plan:Name}" opens nothing to the outside but ports {ports:Numbers}'))
def plan_opens_only(terraform: Terraform, plan: str, ports: list[int]) -> None:
    seen = [opening for opening in terraform.plan(plan).openings if opening not in ports]
    require(not seen, "the plan opens only SSH and HTTP", expected=f"at most {ports}", seen=seen, where=plan)


@then("a second plan changes nothing")
def second_plan_is_empty(terraform: Terraform) -> None:
    seen = terraform.second_plan().changed
    require(
        not seen,
        "a second plan is empty",
        expected="no changes",
        seen=seen,
        paste="terraform -chdir=infra/$TARGET plan -var-file=../../terraform.tfvars",
    )


@then(parsers.parse("every machine answers over SSH within {seconds:d} seconds"))
def machines_answer(cluster: Cluster, waiter: Waiter, seconds: int) -> None:
    waiter.until(
        "every machine answers over SSH", cluster.machines.unreachable, lambda silent: not silent, within=seconds
    )


@then(parsers.parse("no unit is failed on any machine within {seconds:d} seconds"))
def no_failed_units(cluster: Cluster, waiter: Waiter, seconds: int) -> None:
    """A unit that is failed, or still starting: the machine has not finished its boot."""
    ask = "systemctl is-system-running; systemctl --failed --no-legend --plain | cut -d' ' -f1"
    waiter.until(
        "every machine is running without a failed unit",
        lambda: cluster.machines.on_all(lambda name: cluster.machines.run(name, ask).split()),
        lambda states: all(state == ["running"] for state in states.values()),
        within=seconds,
        show=lambda states: {name: state for name, state in states.items() if state != ["running"]},
        paste="systemctl --failed",
    )


@then("no two machines share a machine id")
def machine_ids_differ(cluster: Cluster) -> None:
    answers = cluster.machines.on_all(lambda name: cluster.machines.run(name, "cat /etc/machine-id").strip())
    _differ(answers, "the machine id")


@then("no two machines share an SSH host key")
def host_keys_differ(cluster: Cluster) -> None:
    _differ(cluster.machines.host_keys(), "the SSH host key")


def _differ(answers: dict[str, str], what: str) -> None:
    shared = {answer: count for answer, count in Counter(answers.values()).items() if count > 1 or not answer}
    require(not shared, f"{what} differs on every machine", expected="as many as machines", seen=answers)


@given(phrase("every machine listens on ports {ports:Numbers}"))
def machines_listen(cluster: Cluster, ports: list[int]) -> None:
    """The positive control of what is closed to the outside: something is there to be closed."""
    ask = "ss -Hltn | awk '{ print $4 }' | grep -o '[0-9]*$'"
    listening = cluster.machines.on_all(lambda name: set(map(int, cluster.machines.run(name, ask).split())))
    missing = {name: sorted(set(ports) - open_) for name, open_ in listening.items() if set(ports) - open_}
    require(not missing, "every machine listens", expected=ports, seen=f"not listening: {missing}")


@then(parsers.parse("port {port:d} of every machine is open to the outside"))
def port_is_open(cluster: Cluster, port: int) -> None:
    closed = [name for name, found in cluster.open_ports([port]).items() if found != [port]]
    require(not closed, f"port {port} is open", expected="open on every machine", seen=f"closed on {closed}")


@then(phrase("ports {ports:Numbers} of every machine are closed to the outside"))
def ports_are_closed(cluster: Cluster, ports: list[int]) -> None:
    found = {name: found for name, found in cluster.open_ports(ports).items() if found}
    require(not found, "only SSH and HTTP are open", expected=f"{ports} closed", seen=f"open: {found}")


@then(phrase('every file under "{folder:Name}" is on every machine under "{place:Name}", byte for byte'))
def files_are_on_machines(cluster: Cluster, operator: OperatorShell, folder: str, place: str) -> None:
    missing = cluster.contents.missing(operator.cwd / folder, place)
    require(not missing, f"{folder} is on every machine", expected="the same bytes", seen=missing, where=place)
