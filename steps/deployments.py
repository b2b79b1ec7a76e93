"""Deployments of a site's contents that are under way, and what happens to them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack

from pytest_bdd import parsers, then, when

from harness.drivers.cluster import Cluster
from harness.drivers.deploying import DeploymentUnderWay, Reached
from harness.seams.wait import Waiter
from steps.phrases import Change, phrase, require

Begin = Callable[[str], DeploymentUnderWay]

# The lock that fetch-contents takes to switch; it is let go by itself, too
HOLD = "sudo systemd-run --quiet --collect --unit=hold-contents flock /home/core sleep 180"
# What waits there for an operator who is gone ends first: a machine that was never told is what is meant
RELEASE = "sudo pkill -f '[f]etch-contents --now'; sudo systemctl stop hold-contents 2>/dev/null || true"


@when("no machine can switch")
def no_machine_switches(cluster: Cluster, change: Change, put_back: ExitStack) -> None:
    change("no machine can switch")
    put_back.callback(_release, cluster)
    cluster.machines.on_all(lambda name: cluster.machines.run(name, HOLD))


@when(phrase('machine "{machine:Name}" cannot switch'))
def machine_does_not_switch(cluster: Cluster, change: Change, put_back: ExitStack, machine: str) -> None:
    change(f"{machine} cannot switch")
    put_back.callback(_release, cluster)
    cluster.machines.run(machine, HOLD)


@when("every machine can switch again")
def machines_switch_again(cluster: Cluster, change: Change) -> None:
    change("every machine can switch again")
    _release(cluster)


def _release(cluster: Cluster) -> None:
    cluster.machines.on_all(lambda name: cluster.machines.run(name, RELEASE))


@when(phrase('the operator begins to deploy site "{site:Name}"'), target_fixture="under_way")
def operator_begins(begin_deployment: Begin, change: Change, site: str) -> DeploymentUnderWay:
    change(f"the operator begins to deploy {site}")
    return begin_deployment(site)


@then(parsers.parse("every machine holds the new version, and etcd does not know it, within {seconds:d} seconds"))
def release_is_unpacked(under_way: DeploymentUnderWay, cluster: Cluster, waiter: Waiter, seconds: int) -> None:
    number = len(cluster.machines.names)
    _until_reached(under_way, waiter, Reached(number, known=False, switched=0), seconds)


@then(
    parsers.parse("etcd knows the new version, and {switched:d} machines serve it, within {seconds:d} seconds"),
)
def release_is_switched_to(
    under_way: DeploymentUnderWay, cluster: Cluster, waiter: Waiter, switched: int, seconds: int
) -> None:
    number = len(cluster.machines.names)
    _until_reached(under_way, waiter, Reached(number, known=True, switched=switched), seconds)


def _until_reached(under_way: DeploymentUnderWay, waiter: Waiter, wanted: Reached, seconds: int) -> None:
    waiter.until(
        f"the deployment came so far: {wanted}", under_way.reached, lambda seen: seen == wanted, within=seconds
    )


@when("the operator is killed")
def operator_is_killed(under_way: DeploymentUnderWay, change: Change) -> None:
    change("the operator is killed")
    seen = under_way.kill()
    require(seen.status == -signal.SIGKILL, "the deployment was under way", expected="killed", seen=seen)


@then(phrase('the deployment ends within {seconds:d} seconds, and says "{text:Name}"'))
def deployment_ends(under_way: DeploymentUnderWay, waiter: Waiter, seconds: int, text: str) -> None:
    ended = waiter.until("the deployment ends", under_way.ended, bool, within=seconds, show=lambda it: it and it.stderr)
    require(ended and text in ended.stderr, "the deployment says how it ended", expected=text, seen=ended)


@then(phrase('site "{site:Name}" is deployed again within {seconds:d} seconds'))
def site_is_deployed_again(begin_deployment: Begin, waiter: Waiter, cluster: Cluster, site: str, seconds: int) -> None:
    ended = waiter.until("the deployment ends", begin_deployment(site).ended, bool, within=seconds, show=str)
    assert ended is not None
    seen, expected = cluster.sites[site].version(), ended.expect(0).stdout.strip()
    require(seen == expected, f"{site} tells the new version", expected=expected, seen=seen)
