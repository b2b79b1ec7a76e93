"""The cluster: etcd's members and fleet's machines."""

from __future__ import annotations

from pytest_bdd import given, parsers, then, when

from harness.drivers.cluster import Cluster
from harness.drivers.etcd import MEMBERS_AT_MOST
from harness.runs.faults import Injections
from harness.runs.watch import Watch
from harness.seams.process import Result
from steps.phrases import SEEN, Change, phrase, require


@given(phrase('fault "{name:Name}" is injected'), target_fixture="injected")
@when(phrase('fault "{name:Name}" is injected'), target_fixture="injected")
def fault_is_injected(faults: Injections, name: str) -> list[tuple[str, str]]:
    return faults.inject(name)


@given(phrase('fault "{name:Name}" is injected as well'))
def another_fault_is_injected(faults: Injections, injected: list[tuple[str, str]], name: str) -> None:
    injected += faults.inject(name)


@when(phrase('fault "{name:Name}" is undone'))
def fault_is_undone(faults: Injections, name: str) -> None:
    faults.undo(name)


@then(parsers.parse("what was injected is named, and nothing else, within {seconds:d} seconds"))
def injected_is_named(watch: Watch, injected: list[tuple[str, str]], seconds: int) -> None:
    watch.names("what was injected is named, and nothing else", injected, seconds)


@then(parsers.parse("all is as it must be within {seconds:d} seconds"))
def all_is_well(watch: Watch, seconds: int) -> None:
    watch.changed()
    watch.settled(seconds)


@when("the leader of etcd is killed")
def leader_is_killed(cluster: Cluster, change: Change) -> None:
    leader = cluster.etcd.leader()
    change(f"etcd on {leader}, which leads, is killed")
    cluster.machines.run(leader, "sudo systemctl kill --signal=KILL etcd.service")


@then(phrase('the answer is the address of machine "{name:Name}", or a fixed one that leads there'))
def answer_is_address(answer: Result, cluster: Cluster, name: str) -> None:
    """A fixed one leads there: the target pins the machines' host keys at it, too."""
    addresses, seen = cluster.machines.addresses, answer.stdout.strip()
    pinned = {line.split()[0] for line in cluster.outputs.known_hosts.splitlines() if line.strip()}
    well = seen == addresses[name] or seen in pinned - set(addresses.values())
    require(well, f"the answer is {name}", expected=f"{addresses[name]}, or a fixed address", seen=answer.stdout)


@then("the answer lists every machine")
def answer_lists_machines(answer: Result, cluster: Cluster) -> None:
    listed = [line.split()[1] for line in answer.stdout.splitlines()[1:] if len(line.split()) > 1]
    expected = sorted(cluster.machines.addresses[name] for name in cluster.machines.names)
    require(sorted(listed) == expected, "fleetctl lists the machines", expected=expected, seen=answer.stdout)


@then(
    parsers.parse(
        "every machine reaches the healthy etcd cluster of the first {members:d} machines within {seconds:d} seconds"
    )
)
def etcd_is_healthy(watch: Watch, members: int, seconds: int) -> None:
    require(members == MEMBERS_AT_MOST, "that many are members at most", expected=MEMBERS_AT_MOST, seen=members)
    rules = (*SEEN, "etcd-is-healthy", "etcd-members-are-right", "etcd-has-one-leader")
    watch.until("every machine reaches the healthy etcd cluster", rules, seconds)


@then(parsers.parse("fleet lists every machine within {seconds:d} seconds"))
def fleet_lists_machines(watch: Watch, seconds: int) -> None:
    watch.until("fleet lists every machine", (*SEEN, "fleet-answers", "fleet-lists", "fleet-views-agree"), seconds)


@then(
    parsers.parse(
        "every machine tells fleet its own name, and whether it is an entry point, within {seconds:d} seconds"
    )
)
def names_are_own(watch: Watch, seconds: int) -> None:
    what = "every machine tells fleet its own name, and whether it is an entry point"
    watch.until(what, ("fleet-lists", "fleet-metadata"), seconds)


@then(parsers.parse("all stays as it must be for {seconds:d} seconds, within {limit:d} seconds"))
def all_stays_as_it_must_be(watch: Watch, seconds: int, limit: int) -> None:
    watch.stays(seconds, limit)


@given(parsers.parse("the entry points are the first {number:d} machines"))
def first_are_entry_points(cluster: Cluster, number: int) -> None:
    """All, where there are fewer."""
    seen, expected = cluster.machines.entry_points, [it for it in cluster.machines.names if _number(it) < number]
    require(seen == expected, "the first machines are the entry points", expected=expected, seen=seen)


def _number(machine: str) -> int:
    """2 of `coreos-2`."""
    return int(machine.rpartition("-")[2])


@then("the fleet API of every machine listens on no port")
def fleet_has_no_port(watch: Watch) -> None:
    watch.until("the fleet API of every machine listens on no port", (*SEEN, "fleet-has-no-port"), 0)
