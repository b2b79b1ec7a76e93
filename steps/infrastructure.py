"""The infrastructure: Terraform's plans, and the machines they make."""

from __future__ import annotations

from pytest_bdd import given, parsers, then

from harness.drivers.terraform import Terraform
from harness.runs.watch import Watch
from harness.snapshot.intended import CLOSED_PORTS, LISTENING, OPEN_PORTS
from steps.phrases import SEEN, Variables, phrase, require


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
def second_plan_is_empty(watch: Watch) -> None:
    watch.until("a second plan changes nothing", ("plan-is-empty",), 0)


@then(parsers.parse("every machine answers over SSH within {seconds:d} seconds"))
def machines_answer(watch: Watch, seconds: int) -> None:
    watch.until("every machine answers over SSH", SEEN, seconds)


@then(parsers.parse("every machine has booted, and no unit is failed, within {seconds:d} seconds"))
def machines_have_booted(watch: Watch, seconds: int) -> None:
    rules = (*SEEN, "boot-finished", "system-unit-runs", "no-system-unit-failed")
    watch.until("every machine has booted, and no unit is failed", rules, seconds)


@then("no two machines share a machine id or an SSH host key")
def machines_differ(watch: Watch) -> None:
    rules = (*SEEN, "machine-ids-differ", "host-keys-differ")
    watch.until("no two machines share a machine id or an SSH host key", rules, 0)


@given(phrase("every machine listens on ports {ports:Numbers}"))
def machines_listen(watch: Watch, ports: list[int]) -> None:
    """The positive control of what is closed to the outside: something is there to be closed."""
    require(set(ports) == set(LISTENING), "those are listened on", expected=LISTENING, seen=ports)
    watch.until(f"every machine listens on {ports}", (*SEEN, "machine-listens"), 10)


@then(parsers.parse("port {ssh:d} of every machine and port {http:d} of every entry point are open to the outside"))
def ports_are_open(watch: Watch, ssh: int, http: int) -> None:
    require((ssh, http) == OPEN_PORTS, "those are to be open", expected=OPEN_PORTS, seen=(ssh, http))
    watch.until("SSH and HTTP are open to the outside", ("port-is-open",), 10)


@then(phrase("ports {ports:Numbers} of every machine are closed to the outside"))
def ports_are_closed(watch: Watch, ports: list[int]) -> None:
    require(set(ports) == set(CLOSED_PORTS), "those are looked at", expected=CLOSED_PORTS, seen=ports)
    watch.until("nothing else is open to the outside", (*SEEN, "port-is-closed", "filter-is-loaded"), 10)
