"""Rules of how an instance of a service is found: registered in etcd, followed by every ambassador."""

from __future__ import annotations

from harness.model.registration import is_address
from harness.rules.finding import ALL, AMBASSADOR_LAG, Found, Subject, Wrong, answering, on, rule
from harness.rules.machines import BY_ETCD
from harness.snapshot.data import Snapshot

AMBASSADOR = "-dynamic-amb.service"


def services(now: Snapshot) -> list[str]:
    """Those that have an ambassador."""
    return [name.removesuffix(AMBASSADOR) for name in now.intended.units if name.endswith(AMBASSADOR)]


def running(now: Snapshot, service: str) -> dict[str, str]:
    """HOST:PORT -> machine, of each instance that runs."""
    return {address: machine for address, (machine, _) in now.running(service).items()}


def registered(now: Snapshot, service: str) -> set[str]:
    """The addresses that are registered and can be followed."""
    return {key.address for key in ((now.services or {}).get(service) or {}).values() if is_address(key.address)}


def _silent(now: Snapshot) -> list[str]:
    """The addresses of the machines that do not answer."""
    return [now.intended.machines[name] for name, machine in now.machines.items() if machine.silent]


def _keys(service: str) -> str:
    return f"curl 'http://127.0.0.1:2379/v2/keys/services/{service}?recursive=true'"


@rule("discovery", "etcd tells what is registered", needs=("registrations",), explains=BY_ETCD)
def registrations_are_known(now: Snapshot) -> Found:
    if now.services is None and now.answering and now.intended.started:
        seen = "no machine's etcd tells it"
        yield Wrong(Subject("etcd"), "what is registered", seen, absent=("registrations",))


@rule(
    "discovery",
    "every instance that runs is registered",
    needs=("registrations", "containers"),
    explains=(ALL,),
    lag=AMBASSADOR_LAG,
)
def instance_is_registered(now: Snapshot) -> Found:
    for service in services(now) if now.services is not None else ():
        keys = now.services.get(service) or {} if now.services else {}
        found = {key.address for key in keys.values()}
        instances = running(now, service)
        if not instances and now.intended.started:
            untold = len(now.answering) < len(now.machines)
            yield Wrong(Subject("registration", service), "an instance that is registered", "none runs", untold=untold)
        for address, machine in instances.items():
            if address not in found:
                seen = f"it runs at {address}, and registered is {', '.join(sorted(found)) or 'nothing'}"
                paste = on(machine, _keys(service))
                yield Wrong(Subject("registration", service, machine), f"{address} in etcd", seen, paste=paste)


# it takes nothing away from those beside it: an ambassador passes it over
@rule(
    "discovery",
    "every registration leads to an instance that runs",
    needs=("registrations", "containers"),
    lag=AMBASSADOR_LAG,
)
def registration_is_right(now: Snapshot) -> Found:
    silent = _silent(now)
    for service, keys in (now.services or {}).items():
        instances = running(now, service)
        for name, key in keys.items():
            subject = Subject("registration", f"{service}/{name}")
            host = key.address.rpartition(":")[0]
            if not is_address(key.address):
                yield Wrong(subject, "host and port", key.value, follows=())
            elif key.address not in instances and host not in silent:
                where = ", ".join(sorted(instances)) or "nowhere"
                yield Wrong(subject, "an instance that runs", f"it leads to {key.address}; {service} runs at {where}")
            elif key.ttl is None:
                yield Wrong(subject, "a time to live", "none: it would outlive its instance", follows=())


@rule(
    "discovery",
    "every ambassador has the registered instances",
    needs=("registrations", "containers", "ambassadors"),
    explains=(ALL, "ambassador-reaches"),
    lag=AMBASSADOR_LAG,
)
def ambassador_follows(now: Snapshot) -> Found:
    for service in services(now) if now.services is not None else ():
        expected = registered(now, service)
        for name, machine in answering(now):
            container = (machine.containers or {}).get(f"{service}-dynamic-amb")
            if container is None or container.state != "running":
                continue  # for others to find
            servers = machine.ambassadors.get(service)
            seen = "its proxy does not answer" if servers is None else ", ".join(sorted(servers)) or "no server"
            if servers is None or set(servers) != expected:
                paste = on(name, f"docker exec {service}-dynamic-amb python3 -m ambassador.show {service}")
                subject = Subject("ambassador of", service, name)
                absent = ("ambassadors",) if servers is None else ()
                wanted = f"servers {', '.join(sorted(expected)) or 'none'}"
                yield Wrong(subject, wanted, seen, paste=paste, absent=absent)


@rule(
    "discovery",
    "every ambassador takes the instances that run for healthy, and no other",
    needs=("registrations", "containers", "ambassadors"),
    explains=(ALL,),
    lag=AMBASSADOR_LAG,
)
def ambassador_reaches(now: Snapshot) -> Found:
    silent = _silent(now)
    for service in services(now):
        expected = set(running(now, service)) & registered(now, service)
        for name, machine in answering(now):
            servers = machine.ambassadors.get(service)
            healthy = {address for address, state in (servers or {}).items() if state == "UP"}
            if servers is not None and healthy != expected:
                paste = on(name, f"docker exec {service}-dynamic-amb python3 -m ambassador.show {service}")
                subject = Subject("ambassador of", service, name)
                seen = f"healthy: {', '.join(sorted(healthy)) or 'none'}"
                # what is too many may be an instance of a machine that does not tell of it
                known = {address for address in healthy if address.rpartition(":")[0] not in silent}
                untold = known <= expected <= healthy
                expects = f"healthy: {', '.join(sorted(expected)) or 'none'}"
                yield Wrong(subject, expects, seen, paste=paste, untold=untold)
