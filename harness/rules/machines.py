"""Rules of what a cluster stands on: backing services, machines, etcd and fleet."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from harness.rules.finding import (
    ALL,
    FLEET_LAG,
    Found,
    Subject,
    Wrong,
    answering,
    described,
    ended_for_good,
    most_common,
    on,
    rule,
    since,
    unanswered,
)
from harness.snapshot.data import Machine, Snapshot

# Units of a machine -> the kind of subject that each of them is
SYSTEM = {
    "filter.service": "filter",
    "etcd.service": "etcd",
    "fleet.socket": "fleet",
    "fleet.service": "fleet",
    "docker.service": "docker",
    "contents.service": "contents service",
}
# Parts of an answer that are missing when what they ask does not run, which is for other rules to find; and all of one
FOR_OTHERS = ("texts", "containers", "images", "ambassadors", "routes", "etcd", "metrics", "fleet", "reached")
OF_MACHINES = ("identity", "system", "units", "apps", "listening", "filter", "ruleset", "operator", "sshd", "room",
               "journal", "contents", "helpers", *FOR_OTHERS)  # fmt: skip
CLOCK_AT_MOST = 1.0
# A machine that is very busy for a moment takes a connection late
NETWORK_LAG = 1.0
# A machine tells all of itself in half a second. One that takes ten times as long, while so many processes for each of
# its processors run or wait to, is too slow for any limit
SLOW, CROWDED = 5.0, 5.0
PROCESSORS = Subject("processors")
# What comes late on such machines, or not in time
LATE = (
    "machine-answers", "answer-is-whole", "boot-finished", "docker-answers", "system-unit-runs",
    "no-system-unit-failed", "machine-listens", "etcd-is-healthy", "etcd-has-one-leader", "etcd-keeps-its-leader",
    "fleet-answers", "fleet-lists", "fleet-views-agree", "unit-is-placed", "unit-is-reported", "unit-runs",
    "unit-runs-nowhere-else", "unit-keeps-running", "container-runs", "registrations-are-known",
    "instance-is-registered", "registration-is-right", "ambassador-follows", "ambassador-reaches",
    "site-answers", "site-is-whole", "stranger-gets-nothing", "name-leads", "plan-is-told", "kernel-log-is-told",
    "ports-are-told", "sites-are-walked", "names-are-told",
)  # fmt: skip
# Of rules that nobody declared, those that are told one by one
RULES_SHOWN = 3
# Of a file system, or of the memory: the share that is to be free
FREE_AT_LEAST = 0.05


# Without fleet, or with one that errs, units are not where they are to be, and those that run go on. Without etcd
# nobody is told what changes either, and what ran still answers
BY_FLEET = (
    "fleet-answers", "fleet-lists", "fleet-views-agree", "unit-is-held", "unit-is-placed", "unit-is-reported",
    "unit-text-is-loaded", "unit-runs", "unit-runs-nowhere-else", "unit-keeps-running",
)  # fmt: skip
BY_ETCD = (
    *BY_FLEET, "etcd-is-healthy", "etcd-members-are-right", "etcd-has-one-leader", "machine-listens",
    "registrations-are-known", "instance-is-registered", "registration-is-right", "ambassador-follows",
    "ambassador-reaches", "deployment-is-remembered", "contents-are-held",
)  # fmt: skip
# What a service of a machine leads to that does not run there; one of another kind, to all that stands on it
LEADS = {
    "etcd": BY_ETCD,
    "filter": ("filter-is-loaded", "port-is-open", "port-is-closed", "no-system-unit-failed", "machine-listens"),
    "contents service": ("contents-are-held",),
}
# What a plan says of a machine that is lost: that it is made again, or (a container that ended) that it is to run
AGAIN = re.compile(r": (would be made|must_run false -> true)$")
# What a machine's silence, or its refusal, follows from
SILENT = ("machine-answers", "processors-suffice")
REFUSED = {
    "key": ("agent-holds-a-key", "machine-answers"),
    "too many keys": ("agent-holds-a-key", "machine-answers"),
    "host key": ("host-key-is-pinned", "machine-answers"),
    "sudo": ("operator-is-served",),
}


def at(kind: str, machine: str) -> Subject:
    return Subject(kind, "", machine)


@rule("environment", "every backing service answers", needs=("backing",), explains=("unit-runs", "name-leads"))
def backing_service_answers(now: Snapshot) -> Found:
    for name, reason in now.outside.backing.items():
        if reason:
            yield Wrong(Subject("backing service", name), "an answer", reason)


@rule("environment", "the machines have the processors that they need", needs=("room",), explains=LATE, excuses=True)
def processors_suffice(looks: Sequence[Snapshot]) -> Found:
    """By the slowest look in which most machines were slow; where one alone is, its processors are not the reason."""
    slowest = max(looks, key=_slowness)
    if _slowness(slowest) < SLOW:
        return
    load = median(machine.load / machine.processors for _, machine in answering(slowest))
    expected = (
        f"looks at a machine that take 0.5 s, or fewer than {CROWDED:g} processes that run or wait for each processor"
    )
    seen = f"{_slowness(slowest):.1f} s, and a load of {load:.0f} for each processor"
    yield Wrong(PROCESSORS, expected, seen, slowest.asked, "uptime; head /proc/pressure/cpu")


def _slowness(look: Snapshot) -> float:
    """Seconds that a look took on most machines which are crowded; 0 where most are not."""
    worked = [machine.worked if machine.load >= CROWDED * machine.processors else 0.0 for _, machine in answering(look)]
    return median(worked) if worked else 0.0


@rule("config", "the operator's ssh-agent holds a key", needs=("keys",), explains=("machine-answers",))
def agent_holds_a_key(now: Snapshot) -> Found:
    refused = {machine.refused for machine in now.machines.values()}
    if "key" in refused and not now.outside.keys:
        seen = "it holds none" if now.outside.keys == 0 else "no agent answers"
        yield Wrong(Subject("ssh-agent"), "the operator's key", seen, paste="ssh-add -l")
    elif "too many keys" in refused:
        seen = "the agent offers too many keys: sshd gives up before the right one"
        yield Wrong(Subject("ssh-agent"), "the operator's key, and few others", seen, paste="ssh-add -l")


@rule(
    "provision", "every machine shows the host key that is pinned for it", needs=(), explains=(ALL, "machine-answers")
)
def host_key_is_pinned(now: Snapshot) -> Found:
    for name, machine in now.machines.items():
        if machine.refused == "host key" and not machine.through:
            paste = f"ssh-keyscan {now.intended.machines[name]}; cat known_hosts"
            yield Wrong(at("machine", name), "the host key that is pinned for it", machine.silent, paste=paste)


@rule("provision", "every machine answers over SSH", needs=(), explains=(ALL,))
def machine_answers(now: Snapshot) -> Found:
    for name, machine in now.machines.items():
        if machine.silent:
            paste, follows = on(name, "uptime"), REFUSED.get(machine.refused, SILENT)
            wrong = Wrong(at("machine", name), "an answer over SSH", machine.silent, paste=paste, follows=follows)
            # who refuses the operator, or is behind one who does not answer, may serve readers all the same
            yield replace(wrong, untold=bool(machine.refused or machine.through), absent=OF_MACHINES)


@rule(
    "provision",
    "every machine and those of etcd's members reach each other",
    needs=("reached", "etcd"),
    explains=(ALL,),
    lag=NETWORK_LAG,
)
def machines_reach_each_other(now: Snapshot) -> Found:
    """Of two that do not, nobody knows which is cut off. Of those of a split it is the fewer, for each of them misses
    more of the others."""
    lost = _packets_lost(now)
    while lost:
        pairs = Counter(name for pair in lost for name in pair)
        ill = max(pairs, key=lambda name: (pairs[name], not _well(now.machines[name]), name))
        shares = {name: share for pair, share in lost.items() if ill in pair for name in pair - {ill}}
        lost = {pair: share for pair, share in lost.items() if ill not in pair}
        others = [name for name in now.intended.machines if name in shares]
        seen = ", ".join(f"{shares[name]:.0%} to {name}" for name in others)
        paste = on(ill, f"curl --max-time 2 http://{now.intended.machines[others[0]]}:2379/health")
        yield Wrong(at("network", ill), "every connection to the others", seen, paste=paste)


def _packets_lost(now: Snapshot) -> dict[frozenset[str], float]:
    """Pairs of machines of whose connections less than all got there: which share did."""
    names = {address: name for name, address in now.intended.machines.items()}
    found: dict[frozenset[str], float] = {}
    for name, machine in answering(now):
        for address, share in machine.reached.items():
            other = names.get(address, name)
            if share < 1 and other != name and other in now.answering:
                pair = frozenset((name, other))
                found[pair] = min(share, found.get(pair, 1.0))
    return found


@rule("provision", "a second plan changes nothing", needs=("plan",), costly=True)
def plan_is_empty(now: Snapshot) -> Found:
    paste = "terraform -chdir=infra/$TARGET plan -var-file=../../terraform.tfvars"
    silent = [name for name, machine in now.machines.items() if machine.silent]
    lines = now.plan or ()
    again = {name: [line for line in lines if f'["{name}"]' in line and AGAIN.search(line)] for name in silent}
    others = [line for line in lines if not any(line in its for its in again.values())]
    for name, changes in {"": others, **again}.items():
        if changes:
            yield Wrong(Subject("plan", "", name), "no changes", "; ".join(changes), paste=paste)


@rule("provision", "Terraform's plan ends", needs=("plan",), costly=True)
def plan_is_told(now: Snapshot) -> Found:
    return unanswered(now, "plan", Subject("plan"))


# fleet tells machines apart by their ids
@rule("provision", "no two machines share a machine id", needs=("identity",), explains=(*BY_FLEET, "fleet-metadata"))
def machine_ids_differ(now: Snapshot) -> Found:
    yield from _shared(now, {name: machine.machine_id for name, machine in answering(now)}, "machine id")


@rule("provision", "no two machines share an SSH host key", needs=("identity",))
def host_keys_differ(now: Snapshot) -> Found:
    yield from _shared(now, {name: machine.host_key for name, machine in answering(now)}, "SSH host key")


def _shared(now: Snapshot, values: dict[str, str], what: str) -> Found:
    holders: dict[str, str] = {}
    for name, value in values.items():
        first = holders.setdefault(value, name)
        if not value or first != name:
            seen = f"that of {first}" if value else "none"
            yield Wrong(at("machine", name), f"a {what} of its own", seen, follows=())


@rule("bootstrap", "every machine says all that it is asked", needs=())
def answer_is_whole(now: Snapshot) -> Found:
    for name, machine in answering(now):
        if missing := parts_missing(machine):
            seen = f"none of {', '.join(missing)}"
            yield Wrong(at("machine", name), "an answer to every question", seen, absent=tuple(missing))


def parts_missing(machine: Machine) -> list[str]:
    """The parts that a machine was asked for and did not tell, whatever runs there."""
    # it tries to reach the others where its etcd answers
    others = [part for part in FOR_OTHERS if part != "reached" or "etcd" in machine.missing]
    return [part for part in machine.missing if part not in others]


@rule("bootstrap", "every machine has finished its boot", needs=("units", "system"), explains=(ALL,))
def boot_finished(now: Snapshot) -> Found:
    for name, machine in answering(now):
        boot = machine.units.get("first-boot.service")
        paste = on(name, "journalctl -b -u first-boot --no-pager")
        # a machine that boots again has its first boot behind it: the unit is inactive then
        if boot is None or boot.active not in ("active", "inactive") or boot.result != "success":
            failed = boot is not None and boot.result not in ("success", "timeout")
            follows = () if failed or (boot and boot.active == "failed") else None
            yield Wrong(
                at("boot", name), "a first boot that ended well", described(boot), since(boot, machine), paste, follows
            )
        elif machine.state in ("initializing", "starting"):
            paste = on(name, "systemctl list-jobs")
            yield Wrong(at("boot", name), "a boot that has ended", f"systemd is {machine.state}", None, paste)


@rule("bootstrap", "every clock agrees with the operator's", needs=("identity",))
def clock_agrees(now: Snapshot) -> Found:
    for name, machine in answering(now):
        if abs(machine.clock_ahead) > CLOCK_AT_MOST:
            way = "ahead" if machine.clock_ahead > 0 else "behind"
            seen = f"{abs(machine.clock_ahead):.1f} s {way}"
            paste = on(name, "timedatectl")
            yield Wrong(at("clock", name), f"within {CLOCK_AT_MOST:g} s", seen, paste=paste, follows=())


@rule(
    "bootstrap",
    "there is room on every machine",
    needs=("room",),
    explains=("unit-runs", "etcd-is-healthy", "system-unit-runs"),
)
def room_is_left(now: Snapshot) -> Found:
    for name, machine in answering(now):
        for place, room in machine.rooms.items():
            if room.free < FREE_AT_LEAST * room.size:
                seen = f"{room.free >> 20} of {room.size >> 20} MiB"
                subject = Subject("room", place, name)
                paste = on(name, _what_fills(place))
                yield Wrong(subject, f"{FREE_AT_LEAST:.0%} free", seen, paste=paste, follows=())


def _what_fills(place: str) -> str:
    return "ps -eo rss,args --sort=-rss | head" if place == "memory" else f"sudo du -xa {place} | sort -rn | head -n 20"


@rule("bootstrap", "Docker answers where it runs", needs=("units", "containers", "images"), explains=(ALL,))
def docker_answers(now: Snapshot) -> Found:
    for name, machine in answering(now):
        absent = [part for part in ("containers", "images") if getattr(machine, part) is None]
        if _active(machine, "docker.service") and absent:
            subject, paste = at("docker", name), on(name, "docker ps; docker images")
            yield Wrong(subject, f"a list of its {absent[0]}", "no answer", paste=paste, absent=tuple(absent))


@rule("bootstrap", "the kernel ended no process for want of memory", needs=("kernel",))
def memory_suffices(now: Snapshot) -> Found:
    for line in now.outside.kernel or ():
        yield Wrong(Subject("kernel log", line[:120]), "no process ended for want of memory", line, paste="sudo dmesg")


@rule("bootstrap", "the kernel's log is read where the operator may read it", needs=("kernel",))
def kernel_log_is_told(now: Snapshot) -> Found:
    return unanswered(now, "kernel", Subject("kernel log"))


@rule("bootstrap", "sshd is set as the machines' image says", needs=("sshd",))
def sshd_is_set(now: Snapshot) -> Found:
    for name, machine in answering(now):
        for setting, value in now.intended.sshd.items():
            seen = machine.sshd.get(setting)
            if machine.sshd and seen != value:
                subject, paste = at("sshd", name), on(name, f"sudo sshd -T | grep {setting}")
                yield Wrong(subject, f"{setting} {value}", f"{setting} {seen}", paste=paste, follows=())


@rule(
    "bootstrap",
    "every machine serves the operator's own user: sudo, fleet and Docker",
    needs=("operator", "fleet", "containers"),
    explains=("machine-answers",),
    costly=True,
)
def operator_is_served(now: Snapshot) -> Found:
    """fleetctl asks as that user, all else of a snapshot as root. What does not answer root is for others to find."""
    for name, machine in now.machines.items():
        if machine.refused == "sudo":
            expected, paste = "sudo without a password", on(name, "sudo -n true")
            yield Wrong(at("machine", name), expected, machine.silent, paste=paste, follows=())
        silent = {"fleet": machine.fleet is None, "docker": machine.containers is None}
        said = (machine.operator or {}).items()
        refused = [f"{what}: {why}" for what, why in said if why and not silent.get(what)]
        if refused:
            expected = "an answer of fleet and Docker to the operator's user, and fleetctl in its PATH"
            paste = on(name, "id; ls -l /run/fleet.sock /run/docker.sock")
            yield Wrong(at("machine", name), expected, "; ".join(refused), paste=paste, follows=())


@rule(
    "bootstrap",
    "every service of the machine itself runs",
    needs=("units",),
    explains=(ALL, "etcd-is-healthy", "fleet-lists", "fleet-answers"),
)
def system_unit_runs(now: Snapshot) -> Found:
    for name, machine in answering(now):
        for unit, kind in SYSTEM.items():
            state = machine.units.get(unit)
            needed = unit != "docker.service" or now.intended.started  # it starts with the first container
            if machine.units and needed and (state is None or state.active != "active"):
                paste = on(name, f"systemctl status {unit}; journalctl -b -n 20 -u {unit} --no-pager")
                failed = state is not None and state.active == "failed"
                ended = ("boot-finished", "room-is-left") if failed else ("boot-finished",)
                follows, leads = ended if ended_for_good(state) else None, LEADS.get(kind)
                seen, began = described(state), since(state, machine)
                absent = ("containers",) if kind == "docker" else ()
                yield Wrong(at(kind, name), f"{unit} active", seen, began, paste, follows, leads, absent=absent)


@rule("bootstrap", "no unit of the machine itself is failed", needs=("system", "units"))
def no_system_unit_failed(now: Snapshot) -> Found:
    for name, machine in answering(now):
        for unit in machine.failed:
            if unit not in SYSTEM and unit not in now.intended.units and unit != "first-boot.service":
                state = machine.units.get(unit)
                paste, late = on(name, f"systemctl status {unit}"), state is not None and state.result == "timeout"
                subject, follows = Subject("system unit", unit, name), None if late else ()
                yield Wrong(subject, "not failed", "failed", since(state, machine), paste, follows)


@rule("bootstrap", "every machine's filter is loaded", needs=("filter",), explains=("port-is-open", "port-is-closed"))
def filter_is_loaded(now: Snapshot) -> Found:
    usual = most_common(machine.filter for _, machine in answering(now) if machine.filter)
    for name, machine in answering(now):
        paste = on(name, "sudo nft list table inet platform")
        if not machine.filter:
            yield Wrong(at("filter", name), "the platform's table", "no such table is loaded", paste=paste)
        elif machine.filter != usual:
            seen = "another one is loaded"
            yield Wrong(at("filter", name), "the same as on the others", seen, paste=paste, follows=())


# What a port that is closed, or leads elsewhere, looks like: to the outside, to other machines, and on its own
CLOSED = (
    "port-is-open", "port-is-closed", "machines-reach-each-other", "etcd-is-healthy", "etcd-has-one-leader",
    "etcd-keeps-its-leader", "fleet-answers", "fleet-lists", "fleet-views-agree", "unit-is-placed", "unit-is-reported",
    "unit-runs", "unit-keeps-running", "instance-answers", "registrations-are-known", "instance-is-registered",
    "registration-is-right", "ambassador-follows", "ambassador-reaches", "site-answers",
    "site-is-whole", "site-is-as-deployed", "sites-are-apart", "stranger-gets-nothing", "name-leads",
)  # fmt: skip


@rule(
    "bootstrap",
    "every rule that filters on a machine is the platform's or Docker's",
    needs=("ruleset",),
    explains=CLOSED,
)
def filter_is_declared(now: Snapshot) -> Found:
    for name, machine in answering(now):
        if machine.foreign_rules:
            seen = "; ".join(machine.foreign_rules[:RULES_SHOWN])
            more = len(machine.foreign_rules) - RULES_SHOWN
            seen += f"; and {more} more" if more > 0 else ""
            legacy = any(rule.startswith("legacy ") for rule in machine.foreign_rules)
            paste = on(name, "sudo iptables-legacy-save" if legacy else "sudo nft list ruleset")
            expected = "the platform's rules, Docker's, and no other"
            yield Wrong(at("filter", name), expected, seen, paste=paste, follows=())


# -- etcd ------------------------------------------------------------------------------------------------------------

HEALTH = "ETCDCTL_API=2 etcdctl cluster-health"


@rule("bootstrap", "every machine reaches a healthy etcd that serves v2", needs=("etcd",), explains=BY_ETCD)
def etcd_is_healthy(now: Snapshot) -> Found:
    """/health alone proves too little: it says true on a member without v2, which fleet cannot use."""
    members = list(now.intended.machines)[: now.intended.members_at_most]
    well = [name for name, machine in answering(now) if _well(machine)]
    quorum = 2 * len(set(members) & set(well)) > len(members)
    for name, machine in answering(now):
        if name in well:
            continue
        seen = "no whole answer" if machine.etcd is None else "not healthy"
        absent = ("etcd",) if machine.etcd is None else ()
        if quorum:
            expected = "healthy, and serving v2 keys"
            yield Wrong(at("etcd", name), expected, seen, paste=on(name, HEALTH), absent=absent)
        else:
            expected = f"{len(members) // 2 + 1} members that are well, of {len(members)}"
            yield Wrong(Subject("etcd"), expected, f"{name} is {seen}", paste=on(name, HEALTH), absent=absent)
            return


@rule("bootstrap", "the members of etcd are the first machines, and each says so", needs=("etcd",))
def etcd_members_are_right(now: Snapshot) -> Found:
    seen = [len(machine.etcd.members) for _, machine in answering(now) if machine.etcd]
    first = sorted(list(now.intended.machines)[: min(now.intended.members_at_most, max(seen, default=0))])
    for name, machine in answering(now):
        if machine.etcd and machine.etcd.healthy and sorted(machine.etcd.members) != first:
            members = ", ".join(machine.etcd.members) or "none"
            expected, follows = f"members {', '.join(first)}", ("etcd-is-healthy",)
            yield Wrong(at("etcd", name), expected, members, paste=on(name, HEALTH), follows=follows)


@rule("bootstrap", "etcd has one leader", needs=("etcd",))
def etcd_has_one_leader(now: Snapshot) -> Found:
    known = {name: machine.etcd.leader for name, machine in answering(now) if machine.etcd and machine.etcd.role}
    leaders = sorted(set(known.values()) - {""})
    if known and len(leaders) != 1:
        yield Wrong(Subject("etcd"), "one leader", ", ".join(leaders) or "none")
    for name, leader in known.items():
        if leaders and not leader:
            yield Wrong(at("etcd", name), f"leader {', '.join(leaders)}", "none", paste=on(name, HEALTH))


@rule("bootstrap", "etcd keeps its leader", needs=("etcd", "identity"), compares=True)
def etcd_keeps_its_leader(before: Snapshot, now: Snapshot) -> Found:
    for name, machine in answering(now):
        then = before.machines.get(name)
        if then is None or then.boot != machine.boot or not (then.etcd and machine.etcd):
            continue
        first, last = then.etcd.leader, machine.etcd.leader
        if first and last and first != last:
            yield Wrong(Subject("etcd"), "one leader all the while", f"{first} was followed by {last}")
            return


def _well(machine: Machine) -> bool:
    return bool(machine.etcd and machine.etcd.healthy)


def _active(machine: Machine, unit: str) -> bool:
    return unit in machine.units and machine.units[unit].active == "active"


# -- fleet -----------------------------------------------------------------------------------------------------------


@rule("bootstrap", "fleet answers on every machine", needs=("fleet",), explains=BY_FLEET)
def fleet_answers(now: Snapshot) -> Found:
    for name, machine in answering(now):
        if machine.fleet is None:
            paste = on(name, "journalctl -b -n 20 -u fleet --no-pager")
            yield Wrong(at("fleet", name), "an answer of its API", "none", paste=paste, absent=("fleet",))


@rule("bootstrap", "fleet lists every machine, and no other", needs=("fleet-units",), explains=BY_FLEET, lag=FLEET_LAG)
def fleet_lists(now: Snapshot) -> Found:
    if now.fleet is None:
        seen, paste = "no machine tells it", "fleetctl list-units"
        absent = ("fleet-units",)
        yield Wrong(Subject("fleet"), "its registry", seen, paste=paste, untold=not now.answering, absent=absent)
        return
    listed = {machine.address for machine in now.fleet.machines.values()}
    names = ", ".join(sorted(now.names.get(machine_id, machine_id[:8]) for machine_id in now.fleet.machines)) or "none"
    ids = {name: machine_id for machine_id, name in now.names.items()}
    for name, address in now.intended.machines.items():
        machine_id = ids.get(name)
        if machine_id not in now.fleet.machines if machine_id else address not in listed:
            yield Wrong(at("fleet", name), "listed by fleet", f"it lists {names}", paste="fleetctl list-machines")
    for machine in now.fleet.machines.values():
        if machine.address not in now.intended.machines.values():
            subject = Subject("fleet", f"machine {machine.address}")
            yield Wrong(subject, "not listed by fleet", "listed, and no machine of this cluster", follows=())


@rule(
    "bootstrap",
    "every machine tells fleet its own name, and whether it is an entry point",
    needs=("fleet-units", "identity"),
    explains=("unit-is-placed",),
)
def fleet_metadata(now: Snapshot) -> Found:
    for machine_id, listed in (now.fleet.machines if now.fleet else {}).items():
        name = now.names.get(machine_id)
        if not name:
            continue
        intended = {"name": name, "entry": "yes" if name in now.intended.entry_points else "no"}
        told = {key: listed.metadata.get(key, "") for key in intended}
        if told != intended:
            both = ("metadata " + ",".join(f"{key}={value}" for key, value in it.items()) for it in (intended, told))
            expected, seen = both
            paste = "fleetctl list-machines --full"
            yield Wrong(at("fleet", name), expected, seen, paste=paste, follows=("machine-ids-differ",))


@rule("bootstrap", "every machine's fleet sees the same machines", needs=("fleet", "fleet-units"), lag=FLEET_LAG)
def fleet_views_agree(now: Snapshot) -> Found:
    for name, machine in answering(now):
        if now.fleet and machine.fleet is not None and set(machine.fleet) != set(now.fleet.machines):
            seen = f"{len(machine.fleet)} machines, and {now.fleet.asked_of} sees {len(now.fleet.machines)}"
            yield Wrong(at("fleet", name), "the same machines as the others", seen)


@rule("bootstrap", "every machine listens where it is to", needs=("listening",))
def machine_listens(now: Snapshot) -> Found:
    for name, machine in answering(now):
        found = {address.rpartition(":")[2] for address, _ in machine.listening}
        for port in now.intended.listening:
            if str(port) not in found:
                subject = Subject("port", str(port), name)
                yield Wrong(subject, "somebody who listens", "nobody does", paste=on(name, "ss -Hltnp"))


@rule("bootstrap", "fleet's API listens on no port", needs=("listening",))
def fleet_has_no_port(now: Snapshot) -> Found:
    """systemd listens for it: fleetd is handed the socket, and opens none."""
    for name, machine in answering(now):
        ports = [address for address, program in machine.listening if program == "fleetd"]
        if ports:
            yield Wrong(at("fleet", name), "a socket file only", f"it listens on {', '.join(ports)}", follows=())
