"""The discovery URL: where the machines' etcd members meet for the first time."""

from __future__ import annotations

from pytest_bdd import parsers, then

from harness.drivers.etcd import Registration
from steps.phrases import Variables, require


@then("no machine has met through the discovery URL before")
def nobody_met(registration: Registration) -> None:
    require(not registration.members, "the discovery URL is new", expected="no members", seen=registration.members)


@then(parsers.parse("the discovery URL is for one etcd member a machine, {limit:d} at most"))
def expects_members(registration: Registration, variables: Variables, limit: int) -> None:
    expected = min(variables()["machines"], limit)
    require(registration.size == expected, "the discovery URL fits", expected=expected, seen=registration.size)
