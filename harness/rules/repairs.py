"""What mends a finding: the line to type in the operator's shell, with tonight's names, that changes its subject and
nothing else; or the section of the README that says what to do, where no line can."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping

from harness.rules.finding import Subject, on
from harness.rules.machines import SYSTEM
from harness.rules.schedule import places
from harness.rules.services import registered
from harness.rules.units import container_of, text_of
from harness.snapshot.data import Machine, Snapshot, Unit

# How a repair begins that is no line
README = "README, "
ETCD_ANSWERS_NOT = f"{README}Recovery 6: etcd needs most of its members"
MAKE_AGAIN = f"{README}Recovery 2: make the machine again"
SWITCH_ON = f"{README}Troubleshooting 3: switch the machine on, or make it again"
# Of a machine that answers, and refuses
REFUSED = {
    "key": f"{README}Troubleshooting 1: where the agent holds the operator's key, make the machine again",
    "too many keys": f"{README}Troubleshooting 1: give the agent the operator's key alone",
    "host key": f"{README}Troubleshooting 2: take the pinned keys anew, or make the machine again",
    "sudo": f"{README}Troubleshooting 8: give the operator's user its access back",
}
LAST_WORDS = f"{README}Troubleshooting 11: its last words say why"
# What a service of the machine is started by
STARTED_BY = {"docker": "docker.socket docker", "fleet": "fleet.socket fleet", "contents service": "contents"}
# fleetd that is stopped takes its units along; killed, it is started again, and they run on
FLEET_ANEW = "sudo systemctl kill --signal=KILL fleet"

Repair = Callable[[Subject, Snapshot], str]


def repair(rule: str, subject: Subject, now: Snapshot | None = None) -> str:
    """What mends what a rule found; "" of a rule that this table does not know."""
    found = REPAIRS.get(rule, "")
    if isinstance(found, str):
        return found
    assert now is not None, f"{rule} is found in a snapshot"
    return _lets_in(subject, now) if subject.machine and subject.machine not in now.answering else found(subject, now)


def is_line(mends: str) -> bool:
    """Whether a repair can be typed as it stands."""
    return bool(mends) and not mends.startswith(README)


def _lets_in(subject: Subject, now: Snapshot) -> str:
    """A machine that refuses the operator is on."""
    here = now.machines.get(subject.machine)
    return REFUSED.get(here.refused if here else "", SWITCH_ON)


def _there(command: str) -> Repair:
    """A command on the machine of the subject."""
    return lambda subject, now: on(subject.machine, command)


# -- machines, etcd and fleet ------------------------------------------------------------------------------------------


def _well(now: Snapshot, but: str = "") -> list[str]:
    """The members of etcd that are healthy."""
    members = list(now.intended.machines)[: now.intended.members_at_most]
    well = [name for name, machine in now.answering.items() if machine.etcd and machine.etcd.healthy]
    return [name for name in members if name in well and name != but]


def _asked(now: Snapshot) -> str:
    """A machine whose etcd can be told something; "" where there is none."""
    return next(iter(_well(now)), "")


def _quorum(now: Snapshot, members: int) -> bool:
    return 2 * members > min(len(now.intended.machines), now.intended.members_at_most)


def _system(subject: Subject, now: Snapshot) -> str:
    """A service of the machine: one that somebody stopped is started."""
    machine = now.machines[subject.machine]
    names = STARTED_BY.get(subject.kind, subject.kind)
    states = [machine.units.get(unit) for unit, kind in SYSTEM.items() if kind == subject.kind]
    down = [state for state in states if state and state.active != "active"]
    if not down:
        return MAKE_AGAIN  # systemd does not know it
    if any(state.load == "masked" for state in down):
        return on(subject.machine, f"sudo systemctl unmask {names} && sudo systemctl start {names}")
    if subject.kind == "etcd":
        return _etcd_starts(subject.machine, now, down[0])
    starting = any(state.active == "activating" for state in down)
    return f"{README}Troubleshooting 6: its last words say why" if starting else _started(subject.machine, names)


def _started(machine: str, names: str) -> str:
    return on(machine, f"sudo systemctl start {names}")


def _etcd_starts(machine: str, now: Snapshot, etcd: Unit) -> str:
    others = _well(now, but=machine)
    if etcd.active == "inactive":
        # it is ready when it has a leader: where it would wait for others nobody waits for it
        return _started(machine, "etcd" if _quorum(now, len(others) + 1) else "--no-block etcd")
    if etcd.active == "activating" and etcd.sub != "auto-restart" and not etcd.restarts:
        return ETCD_ANSWERS_NOT  # it waits for others
    # it does not start on its data
    if _quorum(now, len(others)):
        return on(machine, "sudo etcd-anew")
    running = [it for it, other in now.answering.items() if it != machine and _active(other, "etcd.service")]
    return f"{README}Recovery {'9: one member has the data still' if running else '10: no member has the data'}"


def _active(machine: Machine, unit: str) -> bool:
    return unit in machine.units and machine.units[unit].active == "active"


def _etcd(subject: Subject, now: Snapshot) -> str:
    if not subject.machine:
        return ETCD_ANSWERS_NOT
    if not _active(now.machines[subject.machine], "etcd.service"):
        return _system(subject, now)
    return on(subject.machine, "sudo systemctl restart etcd")


def _fleet(subject: Subject, now: Snapshot) -> str:
    if not subject.machine:
        return f"{README}Troubleshooting 8: it is none of this cluster" if subject.name else ETCD_ANSWERS_NOT
    machine = now.machines[subject.machine]
    if not all(_active(machine, unit) for unit in ("fleet.socket", "fleet.service")):
        return _system(subject, now)
    return on(subject.machine, FLEET_ANEW)


def _metadata(subject: Subject, now: Snapshot) -> str:
    """What else somebody told fleet of the machine stays."""
    listed = now.fleet.machines.get(now.machines[subject.machine].machine_id) if now.fleet else None
    own = {"name": subject.machine, "entry": "yes" if subject.machine in now.intended.entry_points else "no"}
    told = ",".join(f"{key}={value}" for key, value in {**own, **(listed.metadata if listed else {}), **own}.items())
    config = f'sudo sed -i "s/^metadata=.*/metadata=\\"{told}\\"/" /etc/fleet/fleet.conf'
    return on(subject.machine, f"{config} && {FLEET_ANEW}")


def _sshd(subject: Subject, now: Snapshot) -> str:
    """The first file that has a setting is the one that counts: what is not the platform's loses it."""
    machine = now.machines[subject.machine]
    wrong = [setting for setting, value in now.intended.sshd.items() if machine.sshd.get(setting) != value]
    lines = " ".join(f"-e /^[[:space:]]*{setting}/Id" for setting in wrong)
    files = "sudo find /etc/ssh/sshd_config.d -name '*.conf' ! -name platform.conf"
    return on(subject.machine, f"{files} -exec sed -i {lines} {{}} + && sudo systemctl reload ssh".replace("'", '"'))


def _undeclared(subject: Subject, now: Snapshot) -> str:
    """Each rule is deleted by the number that the kernel knows it by. A rule's text is followed by it, and may have a
    counter or a comment before its last word."""
    lines = []
    for rule in dict.fromkeys(now.machines[subject.machine].foreign_rules):
        chain, _, text = rule.partition(": ")
        begins, _, last = text.rpartition(" ")
        if chain.startswith("legacy ") or text.startswith("policy ") or not begins:
            return f"{README}Troubleshooting 8: take the rule out"
        whole = shlex.quote(rf"^\s*\Q{begins}\E .*\Q{last}\E.* handle ")
        numbers = f"sudo nft -a list chain {chain} | grep -P {whole} | sed 's/.* handle //'"
        lines.append(f"for n in $({numbers}); do sudo nft delete rule {chain} handle $n; done")
    return on(subject.machine, " && ".join(lines))


def _serves(subject: Subject, now: Snapshot) -> str:
    """A socket gets the owner and the rights that its unit gives it."""
    said = now.machines[subject.machine].operator or {}
    closed = next((name for name in ("fleet", "docker") if said.get(name)), "")
    if not closed or said.get("fleetctl"):
        return MAKE_AGAIN
    of_unit = f"systemctl show --value --property=%s {closed}.socket"
    group, mode = (f"$({of_unit % name})" for name in ("SocketGroup", "SocketMode"))
    file = f"/run/{closed}.sock"
    return on(subject.machine, f"sudo chgrp {group} {file} && sudo chmod {mode} {file}")


def _failed(subject: Subject, now: Snapshot) -> str:
    """One that somebody started by hand has no file to be started from again."""
    unit = now.machines[subject.machine].units.get(subject.name)
    transient = unit is not None and unit.fragment.startswith("/run/systemd/transient/")
    return on(subject.machine, f"sudo systemctl {'reset-failed' if transient else 'restart'} {subject.name}")


def _listens(subject: Subject, now: Snapshot) -> str:
    if subject.name == "2379":
        return _etcd(Subject("etcd", "", subject.machine), now)
    return on(subject.machine, "sudo systemctl restart contents-source.socket") if subject.name == "873" else MAKE_AGAIN


def _room(subject: Subject, now: Snapshot) -> str:
    return f"{README}{'Recovery 8' if subject.name == '/var/lib/etcd' else 'Troubleshooting 7'}: see what fills it"


# -- units -------------------------------------------------------------------------------------------------------------


def _file(name: str, now: Snapshot) -> str:
    return f"units/{'app/' if name.removesuffix('.service') in now.intended.sites else ''}{name}"


def _held(subject: Subject, now: Snapshot) -> str:
    """fleet is given the file of a unit."""
    if now.fleet is None:
        return ETCD_ANSWERS_NOT
    how = "start --no-block" if now.intended.started else "load"
    replace = "--replace " if subject.name in now.fleet.units else ""
    return f"fleetctl {how} {replace}{_file(subject.name, now)}"


def _wanted(subject: Subject, now: Snapshot) -> str:
    return f"fleetctl {'start --no-block' if now.intended.started else 'load'} {subject.name}"


def _unit(subject: Subject, now: Snapshot) -> str:
    """A unit on one machine, there: fleetctl would stop a global one on every machine, and waits for none of them."""
    name = subject.name
    if not subject.machine:
        return f"{README}Troubleshooting 10: no machine has it"
    unit = now.machines[subject.machine].units.get(name)
    if unit is None:
        return LAST_WORDS
    if unit.load == "masked":
        return on(subject.machine, f"sudo systemctl unmask {name} && sudo systemctl start {name}")
    how = "start" if unit.active == "inactive" else "restart"
    again = "" if unit.runs else f"sudo systemctl {how} {name}"
    # what runs is not stopped for what it would be at its next start
    if mended := _as_fleet_has_it(subject, now, again):
        return mended
    return on(subject.machine, again) if again and unit.sub != "auto-restart" else LAST_WORDS


def _as_fleet_has_it(subject: Subject, now: Snapshot, again: str = "") -> str:
    """Takes away what somebody wrote beside fleet, and does something `again`; "" where nobody wrote anything."""
    name, machine = subject.name, subject.machine
    unit = now.machines[machine].units[name]
    loaded = " && ".join(filter(None, ("sudo systemctl daemon-reload", again)))
    if unit.drop_ins:
        return on(machine, f"sudo rm {' '.join(map(shlex.quote, unit.drop_ins))} && {loaded}")
    if not unit.text or unit.text != text_of(now, name):
        file = f"/run/fleet/units/{name}"
        # a unit that systemd does not know any more
        linked = f"sudo systemctl link --runtime {file} && " if unit.load == "not-found" else ""
        return f"fleetctl cat {name} | {on(machine, f'sudo tee {file} >/dev/null && {linked}{loaded}')}"
    return on(machine, loaded) if unit.needs_reload else ""


def _stray(subject: Subject, now: Snapshot) -> str:
    if now.fleet and subject.name not in now.fleet.units:
        return _held(subject, now)  # fleet forgot it, and it serves
    unit = now.machines[subject.machine].units[subject.name]
    # fleet would find it in its way when it brings the unit here
    others = unit.fragment if not unit.text and unit.fragment.startswith(("/run/systemd/", "/etc/systemd/")) else ""
    gone = f" && sudo rm {shlex.quote(others)} && sudo systemctl daemon-reload" if others else ""
    return on(subject.machine, f"sudo systemctl stop {subject.name}{gone}")


def _for_ever(subject: Subject, now: Snapshot) -> str:
    """Where the file of a unit itself says so, it is to be written otherwise."""
    return _as_fleet_has_it(subject, now) or f"{README}Known issues 1: the unit file says so"


def _container(subject: Subject, now: Snapshot) -> str:
    """Its unit puts another in its place, and a sidekick begins anew with its app."""
    machine = now.machines[subject.machine]
    if machine.containers is None:
        docker = Subject("docker", "", subject.machine)
        return _docker(docker, now) if _active(machine, "docker.service") else _system(docker, now)
    unit = next((name for name in _units_of(now) if container_of(now, name) == subject.name), "")
    return on(subject.machine, f"sudo systemctl restart {unit}") if unit else LAST_WORDS


def _image(subject: Subject, now: Snapshot) -> str:
    """A machine that has a tag does not ask for it again."""
    if not subject.machine:
        return f"{README}Troubleshooting 11: the registry is to have it"
    return on(subject.machine, f"docker pull --quiet {now.outside.registry}/{subject.name}")


def _units_of(now: Snapshot) -> list[str]:
    return sorted({*now.intended.units, *(now.fleet.units if now.fleet else ())})


_docker = _there("sudo systemctl restart docker")


# -- how an instance is found ------------------------------------------------------------------------------------------


def _sidekick(subject: Subject, now: Snapshot) -> str:
    """The one of the instance that is not registered: `blog-docker-reg@2.service` of container blog-2."""
    instances = {where: it for where, it in now.running(subject.name).items() if it[0] == subject.machine}
    missing = [container for where, (_, container) in instances.items() if where not in registered(now, subject.name)]
    if not missing:
        return f"{README}Troubleshooting 11: no instance of it runs"
    number = missing[0].removeprefix(subject.name).lstrip("-")
    name = f"{subject.name}-docker-reg{f'@{number}' if number else ''}.service"
    return on(subject.machine, f"sudo systemctl restart {name}")


def _registration(subject: Subject, now: Snapshot) -> str:
    well = _asked(now)
    key = shlex.quote(f"/services/{subject.name}")
    return on(well, f"ETCDCTL_API=2 etcdctl rm {key}") if well else ETCD_ANSWERS_NOT


def _ambassador(subject: Subject, now: Snapshot) -> str:
    return on(subject.machine, f"sudo systemctl restart {subject.name}-dynamic-amb.service")


# -- what people get ---------------------------------------------------------------------------------------------------


def _deployed_again(subject: Subject, now: Snapshot) -> str:
    return f"./bin/deploy-blog {subject.name} sites/{subject.name}"


def _remembered(subject: Subject, now: Snapshot) -> str:
    """etcd is told again what all machines hold: who deploys may have other contents than these."""
    held = {(it.version, it.digest) for machine in now.answering.values() if (it := machine.contents.get(subject.name))}
    well = _asked(now)
    if now.deployed is None or not well:
        return ETCD_ANSWERS_NOT
    if len(held) != 1:
        return _deployed_again(subject, now)
    told = " ".join(*held)
    return on(well, f'ETCDCTL_API=2 etcdctl set /platform/deployed/{subject.name} "{told}"')


def _contents(subject: Subject, now: Snapshot) -> str:
    """Takes what was deployed last from a machine that holds it; a page is replaced at once, and none is missing."""
    site, right = subject.name, (now.deployed or {})[subject.name]
    whole = [
        name
        for name, machine in now.answering.items()
        if (held := machine.contents.get(site)) and (held.version, held.digest) == (right.version, right.digest)
    ]
    if not whole:
        return _deployed_again(subject, now)
    held = now.machines[subject.machine].contents.get(site)
    if held is None or held.version != right.version:
        return on(subject.machine, f"/usr/local/sbin/fetch-contents --now {site}")
    release = f"{site}/releases/{right.version}/"
    source = f"rsync://{now.intended.machines[whole[0]]}/contents/{release}"
    return on(subject.machine, f"rsync --archive --checksum --delete {source} /home/core/{release}")


def _helpers(subject: Subject, now: Snapshot) -> str:
    whole = [name for name, it in now.answering.items() if not it.helpers and "helpers" not in it.missing]
    if not whole:
        return MAKE_AGAIN
    files = " ".join(map(shlex.quote, now.machines[subject.machine].helpers))
    taken = on(whole[0], f"sudo tar -C /home/core -c {files}")
    return f"{taken} | {on(subject.machine, 'sudo tar -C /home/core -x')}"


def _site(subject: Subject, now: Snapshot) -> str:
    """One entry point that fails alone begins anew; where all do, the app."""
    deployed = (now.deployed or {}).get(subject.name)
    version = deployed.version if deployed else ""
    answers = now.outside.sites.get(subject.name, {}).values()
    if any(answer.status == 200 and answer.version == version for answer in answers):
        return on(subject.machine, "sudo systemctl restart entry.service")
    return _app(subject, now)


def _app(subject: Subject, now: Snapshot) -> str:
    running = sorted(now.running(subject.name).values())
    if not running:
        return f"{README}Troubleshooting 11: no instance of it runs"
    machine, container = running[0]
    return _container(Subject("container", container, machine), now)


def _stranger(subject: Subject, now: Snapshot) -> str:
    asked = next((it for it, address in now.intended.machines.items() if address == now.intended.entry_point), "")
    return on(asked, "sudo systemctl restart entry.service") if asked in now.answering else SWITCH_ON


def _name(subject: Subject, now: Snapshot) -> str:
    there = places(now, "entry-name.service")
    if not there or there[0] not in now.answering:
        return f"{README}Troubleshooting 10: no machine has entry-name.service"
    return on(there[0], "sudo systemctl restart entry-name.service")


REPAIRS: Mapping[str, str | Repair] = {
    "engine-answers": f"{README}Troubleshooting 4: bring it back",
    "cluster-is-made": f"{README}Troubleshooting 5: read the plan",
    "backing-service-answers": f"{README}Troubleshooting 4: bring it back",
    "processors-suffice": f"{README}Troubleshooting 17: fewer machines, or more time",
    "plan-is-told": f"{README}Troubleshooting 5: make the plan by hand",
    "kernel-log-is-told": f"{README}Troubleshooting 16: read it by hand",
    "ports-are-told": f"{README}Troubleshooting 16: ask them by hand",
    "sites-are-walked": f"{README}Troubleshooting 16: ask them by hand",
    "names-are-told": f"{README}Troubleshooting 16: ask for them by hand",
    "agent-holds-a-key": lambda subject, now: (
        "ssh-add ../key" if now.outside.keys == 0 else "eval $(ssh-agent) && ssh-add ../key"
    ),
    "host-key-is-pinned": f"{README}Troubleshooting 2: take the pinned keys anew, or make the machine again",
    "machine-answers": _lets_in,
    "machines-reach-each-other": f"{README}Troubleshooting 15: mend the network",
    "plan-is-empty": f"{README}Troubleshooting 5: read the plan",
    "machine-ids-differ": f"{README}Troubleshooting 2: make the machine again",
    "host-keys-differ": f"{README}Troubleshooting 2: make the machine again",
    "answer-is-whole": f"{README}Troubleshooting 8: make the machine again",
    "boot-finished": f"{README}Troubleshooting 6: its last words say why",
    "clock-agrees": f"{README}Troubleshooting 8: set its clock",
    "room-is-left": _room,
    "docker-answers": _docker,
    "memory-suffices": f"{README}Troubleshooting 7: see what fills it",
    "sshd-is-set": _sshd,
    "system-unit-runs": _system,
    "no-system-unit-failed": _failed,
    "filter-is-loaded": _there("sudo systemctl restart filter"),
    "filter-is-declared": _undeclared,
    "operator-is-served": _serves,
    "etcd-is-healthy": _etcd,
    "etcd-members-are-right": f"{README}Troubleshooting 8: make the machine again",
    "etcd-has-one-leader": _etcd,
    "etcd-keeps-its-leader": f"{README}Troubleshooting 6: its last words say why",
    "fleet-answers": _fleet,
    "fleet-lists": _fleet,
    "fleet-metadata": _metadata,
    "fleet-views-agree": _fleet,
    "machine-listens": _listens,
    "fleet-has-no-port": f"{README}Troubleshooting 8: make the machine again",
    "unit-is-held": _held,
    "unit-is-as-written": _held,
    "unit-is-wanted": _wanted,
    "unit-is-placed": f"{README}Troubleshooting 10: see what its file asks for",
    "unit-is-reported": f"{README}Troubleshooting 10: see what its file asks for",
    "unit-is-not-overridden": _unit,
    "unit-text-is-loaded": _unit,
    "unit-restarts-for-ever": _for_ever,
    "unit-runs": _unit,
    "unit-runs-nowhere-else": _stray,
    "unit-keeps-running": LAST_WORDS,
    "container-runs": _container,
    "instance-answers": _container,
    "container-has-memory": f"{README}Troubleshooting 7: see what fills it",
    "container-has-image": _container,
    "tag-leads-to-its-image": _image,
    "registrations-are-known": ETCD_ANSWERS_NOT,
    "instance-is-registered": _sidekick,
    "registration-is-right": _registration,
    "ambassador-follows": _ambassador,
    "ambassador-reaches": _ambassador,
    "helpers-are-there": _helpers,
    "deployment-is-remembered": _remembered,
    "contents-are-held": _contents,
    "port-is-open": f"{README}Troubleshooting 3: something is in its way",
    "port-is-closed": _there("sudo systemctl restart filter"),
    "entry-has-routes": _there("sudo systemctl restart entry.service"),
    "site-answers": _site,
    "site-is-whole": f"{README}Troubleshooting 13: mend the contents, and deploy them",
    "site-is-as-deployed": _app,
    "sites-are-apart": _deployed_again,
    "stranger-gets-nothing": _stranger,
    "name-leads": _name,
}
