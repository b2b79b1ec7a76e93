"""The discovery URL: where the machines' etcd members meet for the first time."""

from __future__ import annotations

from pytest_bdd import then

from harness.etcd import Registration
from steps.phrases import Variables, require


@then("no machine has met through the discovery URL before")
def nobody_met(registration: Registration) -> None:
    require(not registration.members, "the discovery URL is new", expected="no members", seen=registration.members)


@then("the discovery URL expects as many machines as the variables name")
def expects_machines(registration: Registration, variables: Variables) -> None:
    machines = variables()["machines"]
    require(registration.size == machines, "the discovery URL fits", expected=machines, seen=registration.size)
