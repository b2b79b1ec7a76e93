"""The cluster: etcd's members and fleet's machines."""

from __future__ import annotations

from pytest_bdd import parsers, then

from harness.drivers.cluster import Cluster
from harness.seams.process import Result
from harness.seams.wait import Waiter
from steps.phrases import phrase, require

FLEET_SOCKET = "/run/fleet.sock (Stream)"


@then(
    parsers.parse(
        "every machine reaches the healthy etcd cluster of the first {members:d} machines within {seconds:d} seconds"
    )
)
def etcd_is_healthy(cluster: Cluster, waiter: Waiter, members: int, seconds: int) -> None:
    waiter.until(
        "every machine reaches the healthy etcd cluster",
        lambda: cluster.etcd.problems(members),
        lambda problems: not problems,
        within=seconds,
        paste="ETCDCTL_API=2 etcdctl cluster-health",
    )


@then(parsers.parse("fleet lists every machine within {seconds:d} seconds"))
def fleet_lists_machines(cluster: Cluster, waiter: Waiter, seconds: int) -> None:
    waiter.until(
        "fleet lists every machine",
        lambda: sorted(machine.name for machine in cluster.fleet.machines()),
        lambda names: names == sorted(cluster.machines.names),
        within=seconds,
        paste="fleetctl list-machines",
    )


@then("every machine tells fleet its own name")
def names_are_own(cluster: Cluster) -> None:
    seen = {machine.address: machine.name for machine in cluster.fleet.machines()}
    expected = {address: name for name, address in cluster.machines.addresses.items()}
    require(seen == expected, "metadata name=... is the machine's own", expected=expected, seen=seen)


@then("the fleet API of every machine listens on no port")
def fleet_has_no_port(cluster: Cluster) -> None:
    """systemd listens for it: fleetd is handed the socket, and opens none."""
    ask = "systemctl show --value --property=Listen fleet.socket; sudo ss -Hltnp | grep fleetd || true"
    seen = cluster.machines.on_all(lambda name: cluster.machines.run(name, ask).strip())
    wrong = {name: answer for name, answer in seen.items() if answer != FLEET_SOCKET}
    require(not wrong, "fleet's API is a socket file only", expected=FLEET_SOCKET, seen=wrong)


@then(phrase('the answer is the address of machine "{name:Name}"'))
def answer_is_address(answer: Result, cluster: Cluster, name: str) -> None:
    expected = cluster.machines.addresses[name]
    require(answer.stdout.strip() == expected, f"the answer is {name}", expected=expected, seen=answer.stdout)


@then("the answer lists every machine")
def answer_lists_machines(answer: Result, cluster: Cluster) -> None:
    listed = [line.split()[1] for line in answer.stdout.splitlines()[1:] if len(line.split()) > 1]
    expected = sorted(cluster.machines.addresses[name] for name in cluster.machines.names)
    require(sorted(listed) == expected, "fleetctl lists the machines", expected=expected, seen=answer.stdout)
