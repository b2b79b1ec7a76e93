"""Services: what is registered of them, what their ambassadors make of it, and the changes that they meet."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack

from pytest_bdd import given, parsers, then, when

from harness.drivers.cluster import Cluster
from harness.drivers.machines import Machines
from harness.drivers.services import ETCD_OF_CONTAINERS, Ambassador, Services
from harness.drivers.traffic import Traffic
from harness.model.registration import is_address, registration
from harness.rules.finding import Subject
from harness.runs.faults import Making
from harness.runs.watch import Watch
from harness.seams.patience import patience
from harness.seams.wait import Waiter
from steps.phrases import Change, phrase, require

Streams = Mapping[str, Traffic]
StartTraffic = Callable[[str, str, int], None]
Inject = Callable[[str, str], None]


# -- what holds ------------------------------------------------------------------------------------------------------


@then(
    phrase('service "{service:Name}" runs and is registered at exactly {number:Addresses} within {seconds:d} seconds')
)
def registered_at(cluster: Cluster, waiter: Waiter, service: str, number: int, seconds: int) -> None:
    what = f"{service} runs and is registered at exactly {number}"
    _until_registered(cluster.services, waiter, service, seconds, what, lambda addresses: addresses == number)


def _until_registered(
    services: Services, waiter: Waiter, service: str, seconds: int, what: str, enough: Callable[[int], bool]
) -> None:
    waiter.until(
        what,
        lambda: (services.registered(service), services.published(service)),
        lambda found: enough(len(found[1])) and found[0] == found[1],
        within=seconds,
        show=lambda found: f"registered {sorted(found[0])}, running {sorted(found[1])}",
        paste=f"curl http://127.0.0.1:2379/v2/keys/services/{service}",
    )


@then(phrase('service "{service:Name}" is registered nowhere within {seconds:d} seconds'))
def registered_nowhere(cluster: Cluster, waiter: Waiter, service: str, seconds: int) -> None:
    waiter.until(
        f"{service} is registered nowhere",
        lambda: sorted(cluster.services.registered(service)),
        lambda found: not found,
        within=seconds,
        paste=f"curl http://127.0.0.1:2379/v2/keys/services/{service}",
    )


@then(phrase('every ambassador of "{service:Name}" has exactly the registered instances within {seconds:d} seconds'))
def ambassadors_follow(cluster: Cluster, waiter: Waiter, service: str, seconds: int) -> None:
    def wrong() -> dict[str, Ambassador]:
        registered = {address for address in cluster.services.registered(service) if is_address(address)}
        found = cluster.services.ambassadors(service)
        # what a container finds in etcd under the name of its ambassador counts too
        return {name: it for name, it in found.items() if not registered == it.registered == set(it.servers)}

    waiter.until(
        f"every ambassador of {service} has the registered instances",
        wrong,
        lambda found: not found,
        within=seconds,
        show=lambda found: {
            name: f"registered {sorted(it.registered)}, servers {it.servers}" for name, it in found.items()
        },
        paste=f"docker exec {service}-dynamic-amb python3 -m ambassador.show {service}",
    )


@then(
    phrase('every ambassador of "{service:Name}" takes the instances that run for healthy within {seconds:d} seconds')
)
def ambassadors_reach(cluster: Cluster, waiter: Waiter, service: str, seconds: int) -> None:
    def seen() -> tuple[set[str], dict[str, Mapping[str, str]]]:
        running = cluster.services.published(service)
        found = cluster.services.ambassadors(service)
        return running, {name: it.servers for name, it in found.items() if it.healthy != running}

    waiter.until(
        f"every ambassador of {service} takes the instances that run for healthy, and no other",
        seen,
        lambda found: bool(found[0]) and not found[1],
        within=seconds,
        show=lambda found: f"running {sorted(found[0])}, servers {found[1]}",
        paste=f"docker exec {service}-dynamic-amb python3 -m ambassador.show {service}",
    )


@then(phrase('containers of "{service:Name}" reach etcd through its ambassador, and nothing that is closed to them'))
def containers_reach_etcd(cluster: Cluster, answering: Callable[[], Collection[str]], service: str) -> None:
    # a machine that is silent is told as that, and not waited for once more
    taken = cluster.services.taken(service, answering())
    wrong = {name: sorted(places) for name, places in taken.items() if places != {ETCD_OF_CONTAINERS}}
    require(
        taken and not wrong,
        f"containers of {service} reach {ETCD_OF_CONTAINERS} only",
        expected=ETCD_OF_CONTAINERS,
        seen=f"{wrong or 'no container was asked'}",
    )


# -- requests, all the while -----------------------------------------------------------------------------------------


@given(parsers.parse("the sites are asked {rate:d} times a second each, at a machine that runs neither"))
def sites_are_asked(
    start_traffic: StartTraffic,
    cluster: Cluster,
    traffic: Streams,
    waiter: Waiter,
    rate: int,
) -> None:
    running = {name for site in cluster.sites for name in cluster.units.machines_running(f"{site}.service")}
    free = [name for name in cluster.machines.entry_points if name not in running]
    require(free, "there is an entry point that runs no site", expected="one", seen=f"{sorted(running)} run one")
    sites_are_asked_at(start_traffic, cluster, traffic, waiter, rate, free[0])


@given(phrase('the sites are asked {rate:d} times a second each, at machine "{machine:Name}"'))
def sites_are_asked_at(
    start_traffic: StartTraffic, cluster: Cluster, traffic: Streams, waiter: Waiter, rate: int, machine: str
) -> None:
    for site in cluster.sites:
        start_traffic(site, cluster.machines.addresses[machine], rate)
    _until_answered(traffic, waiter)


@given(parsers.parse("the sites are asked {rate:d} times a second each, at their names"))
def sites_are_asked_by_name(
    start_traffic: StartTraffic, traffic: Streams, waiter: Waiter, cluster: Cluster, rate: int
) -> None:
    for site in cluster.sites:
        start_traffic(site, "", rate)
    _until_answered(traffic, waiter)


def _until_answered(traffic: Streams, waiter: Waiter) -> None:
    """What fails after a change must have been right before it."""
    for site, stream in traffic.items():
        waiter.until(
            f"requests to {site} are right before anything changes",
            lambda stream=stream: (stream.right_for(), stream.last_seen),  # type: ignore[misc]
            lambda found: found[0] >= 0.3,
            within=10,
            show=lambda found: found[1],
        )


@then(phrase('site "{site:Name}" is right again within {seconds:d} seconds'))
def right_again(traffic: Streams, waiter: Waiter, site: str, seconds: int) -> None:
    """Since the change; and for a second on."""
    stream, within = traffic[site], seconds * patience()
    waiter.until(
        f"{site} is right again",
        lambda: (stream.right_for(), stream.tally()),
        lambda found: found[0] >= 1,
        within=seconds + 1,
        show=lambda found: f"{found[1].bad} of {found[1].made} requests not right: {found[1].first_seen or '-'}",
    )
    seen = stream.tally().right_after
    require(seen <= within, f"{site} is right again", expected=f"within {within:g} s", seen=f"after {seen:g} s")
    tally = stream.settled()
    seen_wrong = f"{tally.wrong} answered wrongly, first: {tally.first_seen}"
    require(not tally.wrong, f"{site} is never answered wrongly", expected="no wrong answer", seen=seen_wrong)


@then(
    phrase(
        'at most {most:d} of at least {least:d} requests to site "{site:Name}" failed, and none was answered wrongly'
    )
)
def requests_failed(traffic: Streams, waiter: Waiter, most: int, least: int, site: str) -> None:
    """Where all takes longer (PATIENCE), a site may be away longer too."""
    stream, most = traffic[site], math.floor(most * patience())
    waiter.until(
        f"{least} requests to {site} are made",
        stream.tally,
        lambda tally: tally.made >= least,
        within=least / stream.rate + 5,
        show=lambda tally: tally.made,
    )
    tally = stream.settled()
    require(
        tally.failed <= most and not tally.wrong,
        f"{site} is served while it changes",
        expected=f"{most} failed requests at most, and none answered wrongly",
        seen=f"{tally.failed} of {tally.made} failed, and {tally.wrong} in all answered wrongly, "
        f"first: {tally.first_seen}",
    )


@then(phrase('requests to site "{site:Name}" are answered with status {status:d} within {seconds:d} seconds'))
def answered_with(traffic: Streams, waiter: Waiter, site: str, status: int, seconds: int) -> None:
    waiter.until(
        f"requests to {site} get status {status}",
        lambda: traffic[site].last_seen,
        lambda seen: seen == f"status {status}",
        within=seconds,
    )


# -- changes ---------------------------------------------------------------------------------------------------------


@when(phrase('unit "{unit:Name}" starts again'))
def unit_starts_again(cluster: Cluster, change: Change, unit: str) -> None:
    machine = cluster.units.machine_running(unit)
    change(f"{unit} starts again")
    cluster.machines.run(machine, f"sudo systemctl restart {shlex.quote(unit)}")


@when(phrase('the container of unit "{unit:Name}" is killed'))
def container_is_killed(cluster: Cluster, change: Change, unit: str) -> None:
    machine = cluster.units.machine_running(unit)
    change(f"the container of {unit} is killed")
    cluster.machines.run(machine, f"docker kill {shlex.quote(_container(unit))}")


@when(phrase('the app of unit "{unit:Name}" hangs'), target_fixture="injected")
def app_hangs(
    cluster: Cluster, change: Change, put_back: ExitStack, making: Making, unit: str
) -> list[tuple[str, str]]:
    """It takes connections and answers nothing."""
    machine, container = cluster.units.machine_running(unit), _container(unit)
    signal = f"docker top {shlex.quote(container)} -eo pid | sed 1d | xargs -r sudo kill"
    change(f"the app of {unit} hangs")
    put_back.callback(cluster.machines.run, machine, f"{signal} -CONT")
    named = [("instance-answers", f"container {container} on {machine}")]
    put_back.enter_context(making(named))
    cluster.machines.run(machine, f"{signal} -STOP")
    return named


@when(phrase('the container of unit "{unit:Name}" is paused'), target_fixture="injected")
def container_is_paused(
    cluster: Cluster, change: Change, put_back: ExitStack, making: Making, unit: str
) -> list[tuple[str, str]]:
    machine, container = cluster.units.machine_running(unit), _container(unit)
    change(f"the container of {unit} is paused")
    # one that was killed is paused no more
    put_back.callback(cluster.machines.run, machine, f"docker unpause {shlex.quote(container)} || true")
    named = [("container-runs", f"container {container} on {machine}")]
    put_back.enter_context(making(named))
    cluster.machines.run(machine, f"docker pause {shlex.quote(container)}")
    return named


def _container(unit: str) -> str:
    """`blog` of blog.service, `blog-2` of blog@2.service."""
    return unit.removesuffix(".service").replace("@", "-")


@when(phrase('a registration of "{service:Name}" is left that leads to service "{other:Name}"'))
def stray_registration(cluster: Cluster, inject: Inject, service: str, other: str) -> None:
    running = sorted(cluster.services.published(other))
    require(running, f"{other} runs", expected="at one address or more", seen="nowhere")
    inject(service, registration(running[0]))


@when(phrase('a registration of "{service:Name}" is left that leads to a machine that is gone'))
def stale_registration(cluster: Cluster, inject: Inject, service: str) -> None:
    # the cluster's network is a /24, and its last address no machine's
    network = cluster.machines.addresses[cluster.machines.names[0]].rpartition(".")[0]
    inject(service, registration(f"{network}.254:32768"))


@when(phrase('these registrations of "{service:Name}" are left'))
def malformed_registrations(inject: Inject, service: str, datatable: list[list[str]]) -> None:
    for (value,) in datatable:
        inject(service, value)


@when(phrase('unit "{unit:Name}" is stopped on every machine'))
def unit_stops_everywhere(cluster: Cluster, watch: Watch, change: Change, put_back: ExitStack, unit: str) -> None:
    change(f"{unit} is stopped on every machine")
    stopped = [("unit-runs", Subject("unit", unit, name)) for name in cluster.machines.names]
    put_back.enter_context(watch.expecting(*stopped))
    put_back.callback(_everywhere, cluster.machines, "start", unit)
    _everywhere(cluster.machines, "stop", unit)


@when(phrase('unit "{unit:Name}" is started on every machine'))
def unit_starts_everywhere(cluster: Cluster, change: Change, unit: str) -> None:
    change(f"{unit} is started on every machine")
    _everywhere(cluster.machines, "start", unit)


def _everywhere(machines: Machines, verb: str, unit: str) -> None:
    """Where fleet has it: on another machine there is nothing to be stopped, or started."""
    unit = shlex.quote(unit)
    command = f"! systemctl cat {unit} >/dev/null 2>&1 || sudo systemctl {verb} {unit}"
    machines.on_all(lambda name: machines.run(name, command))


@then(parsers.parse("every service is registered exactly where it runs within {seconds:d} seconds"))
def services_are_registered(watch: Watch, seconds: int) -> None:
    rules = ("registrations-are-known", "instance-is-registered", "registration-is-right")
    watch.until("every service is registered exactly where it runs", rules, seconds)


@then(
    parsers.parse(
        "every ambassador has exactly the registered instances, and takes them for healthy, within {seconds:d} seconds"
    )
)
def ambassadors_follow_and_reach(watch: Watch, seconds: int) -> None:
    watch.until(
        "every ambassador follows its service",
        (
            "unit-is-held",
            "unit-runs",
            "container-runs",
            "registrations-are-known",
            "ambassador-follows",
            "ambassador-reaches",
        ),
        seconds,
    )
