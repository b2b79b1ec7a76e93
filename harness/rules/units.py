"""Rules of what systemd and Docker make of units, on the machines where fleet has them."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator

from harness.model.unit_file import image_of, written
from harness.rules.finding import (
    ALL,
    AMBASSADOR_LAG,
    DOCKER_LAG,
    FLEET_LAG,
    Found,
    Subject,
    Wrong,
    answering,
    described,
    ended_for_good,
    on,
    rule,
    since,
)
from harness.rules.schedule import options_of, places, unit_of
from harness.snapshot.data import Image, Machine, Snapshot, Unit

# What has systemd end a unit for good: who stops it, which is fleet where that is stopped itself or told to, and the
# unit that it is a part of
STOPPED_BY = ("boot-finished", "system-unit-runs fleet", "unit-is-held", "unit-is-wanted", "unit-runs")
# What gives systemd another text than the unit's file
OTHER_TEXT = ("unit-is-as-written", "unit-is-not-overridden", "unit-text-is-loaded")
# Why a container is not there whose unit runs, or says nothing
DOCKER_AWAY = ("docker-answers", "system-unit-runs docker", "boot-finished", "processors-suffice")
# Why another program answers on an app's port, or none
LEADS_ELSEWHERE = ("filter-is-declared", "tag-leads-to-its-image", "container-has-image")
# What gives a container another image
OTHER_IMAGE = ("tag-leads-to-its-image", *OTHER_TEXT)
# `docker run --name NAME` of a unit, whatever stands between
CONTAINER = re.compile(r"\bdocker run\b.*?--name[ =](\S+)", re.DOTALL)
# What a container of another image looks like: it ends, or answers otherwise
OF_ANOTHER_IMAGE = (
    "container-has-image", "unit-runs", "unit-keeps-running", "instance-answers", "port-is-open",
    "instance-is-registered", "registration-is-right", "ambassador-follows", "ambassador-reaches", "site-answers",
    "site-is-whole", "site-is-as-deployed", "sites-are-apart", "stranger-gets-nothing",
)  # fmt: skip


def wanted(now: Snapshot) -> Iterator[tuple[str, str, Machine, Unit | None]]:
    """Each unit that is to run, on each machine that fleet has it on: its name, the machine's, and what is there."""
    for name in now.intended.units:
        held = now.fleet.units.get(name) if now.fleet else None
        if held and held.desired == "launched" and now.intended.started:
            for machine in places(now, name):
                yield name, machine, now.machines[machine], now.machines[machine].units.get(name)


@rule(
    "unit",
    "a unit is what fleet has of it, and nothing beside that",
    needs=("fleet-units", "units"),
    explains=("unit-restarts-for-ever",),
)
def unit_is_not_overridden(now: Snapshot) -> Found:
    for name, machine, _, unit in wanted(now):
        if unit and unit.load == "loaded" and unit.drop_ins:
            paste = on(machine, f"systemctl cat {name}")
            yield Wrong(unit_of(name, machine), "no drop-in", ", ".join(unit.drop_ins), paste=paste, follows=())


def text_of(now: Snapshot, name: str) -> str:
    """The digest (SHA-256) of the text that fleet makes of a unit."""
    return hashlib.sha256(written(options_of(now, name))).hexdigest()


@rule(
    "unit",
    "every machine has a unit's text as fleet has it",
    needs=("fleet-units", "units", "texts"),
    explains=("unit-restarts-for-ever",),
    lag=FLEET_LAG,
)
def unit_text_is_loaded(now: Snapshot) -> Found:
    for name, machine, its, unit in wanted(now):
        if unit and unit.load == "loaded":
            paste = on(machine, f"systemctl cat {name}")
            if unit.text != text_of(now, name):
                seen, follows = ("another text", ("unit-is-as-written",)) if unit.text else ("fleet wrote none", None)
                subject, absent = unit_of(name, machine), ("texts",) if "texts" in its.missing else ()
                yield Wrong(subject, "the text that fleet holds", seen, paste=paste, follows=follows, absent=absent)
            elif unit.needs_reload:
                subject, expected = unit_of(name, machine), "the text that is there, loaded"
                yield Wrong(subject, expected, "not loaded since", paste=paste, follows=("unit-is-as-written",))


@rule("unit", "every unit is restarted for ever", needs=("fleet-units", "units"))
def unit_restarts_for_ever(now: Snapshot) -> Found:
    """systemd gives up on a unit that is started more than `burst` times in an interval: by default 5 in 10 s."""
    for name, machine, _, unit in wanted(now):
        if unit is None or unit.load != "loaded":
            continue
        paste = on(machine, f"systemctl show {name} -p Restart,RestartUSec,StartLimitBurst,StartLimitIntervalUSec")
        # none is infinity; no burst is no limit
        limit = math.inf if unit.start_limit_interval is None else unit.start_limit_interval
        if unit.restart != "always":
            seen = f"Restart={unit.restart}"
            yield Wrong(unit_of(name, machine), "Restart=always", seen, paste=paste, follows=OTHER_TEXT)
        elif unit.start_limit_burst and limit and (unit.restart_sec or 0) * unit.start_limit_burst <= limit:
            expected = f"RestartSec above {limit / unit.start_limit_burst:g} s, so that systemd never gives up"
            seen = f"{unit.restart_sec or 0:g} s"
            yield Wrong(unit_of(name, machine), expected, seen, paste=paste, follows=OTHER_TEXT)


@rule(
    "unit",
    "every unit is active and running where fleet has it",
    needs=("fleet-units", "units"),
    explains=(ALL, "unit-keeps-running"),
)
def unit_runs(now: Snapshot) -> Found:
    for name, machine_name, machine, unit in wanted(now):
        if unit is None or not unit.runs:
            # what is not known does not hold
            known = described(unit) if machine.units else "its machine does not tell"
            seen, paste = f"{known}, and fleet says launched", f"fleetctl status {name}"
            subject, follows = unit_of(name, machine_name), STOPPED_BY if ended_for_good(unit) else None
            untold = bool(machine.silent)
            yield Wrong(subject, "active and running", seen, since(unit, machine), paste, follows, untold=untold)
    for name, unit_held in (now.fleet.units if now.fleet else {}).items():
        wanted_here = name in now.intended.units and now.intended.started and unit_held.desired == "launched"
        if wanted_here and not places(now, name):
            yield Wrong(unit_of(name), "active and running", "it is on no machine", paste=f"fleetctl status {name}")


@rule(
    "unit",
    "no unit runs where fleet does not have it",
    needs=("fleet-units", "units", "texts"),
    explains=("registration-is-right",),
    lag=FLEET_LAG,
)
def unit_runs_nowhere_else(now: Snapshot) -> Found:
    if now.fleet is None:
        return
    for name in sorted(set(now.fleet.units) | set(now.intended.units)):
        here = places(now, name)
        for machine_name, machine in answering(now):
            unit = machine.units.get(name)
            if machine_name not in here and unit and unit.active in ("active", "activating"):
                has_it = f"fleet has it on {', '.join(here) or 'none that answers'}"
                seen = f"{described(unit)}; {has_it}"
                paste = on(machine_name, f"systemctl status {name}")
                by_hand = not unit.text and "texts" not in machine.missing
                subject, follows = unit_of(name, machine_name), () if by_hand else None
                yield Wrong(subject, "not running here", seen, since(unit, machine), paste, follows)


@rule("unit", "every unit keeps running", needs=("fleet-units", "units", "identity"), compares=True)
def unit_keeps_running(before: Snapshot, now: Snapshot) -> Found:
    for name, machine_name, machine, unit in wanted(now):
        then = before.machines.get(machine_name)
        first = then.units.get(name) if then and then.boot == machine.boot else None
        if first and unit and first.runs and first.main_pid != unit.main_pid:
            seen = f"started again ({first.restarts} and then {unit.restarts} restarts by systemd)"
            paste = f"fleetctl journal --lines=30 {name}"
            yield Wrong(unit_of(name, machine_name), "one process all the while", seen, since(unit, machine), paste)


# -- containers --------------------------------------------------------------------------------------------------------


def container_of(now: Snapshot, name: str) -> str:
    """The name of the container that a unit runs; "" of one that runs none."""
    starts = [
        value for section, option, value in options_of(now, name) if (section, option) == ("Service", "ExecStart")
    ]
    found = CONTAINER.search(" ".join(starts))
    return found[1] if found else ""


@rule(
    "unit",
    "a unit's tag leads to the image that the registry has by it",
    needs=("images", "manifests"),
    explains=OF_ANOTHER_IMAGE,
)
def tag_leads_to_its_image(now: Snapshot) -> Found:
    """On every machine that has it, before anything starts from it: a tag that is there is not asked for again."""
    for image, digest in now.outside.images.items():
        tag = f"{now.outside.registry}/{image}"
        if not digest:
            subject, paste = Subject("image", image), f"curl http://{now.outside.registry}/v2/_catalog"
            seen = "it has no image of this name and tag"
            yield Wrong(subject, "in the image registry", seen, paste=paste, follows=())
            continue
        for name, machine in answering(now):
            for image_id, held in (machine.images or {}).items():
                if tag in held.tags and not _is_image(digest, image_id, held):
                    subject, paste = Subject("image", image, name), on(name, "docker images --digests")
                    expected = f"as the registry has it, {digest[:16]}"
                    yield Wrong(subject, expected, _shown(held), paste=paste, follows=())


# what is paused says nothing
@rule(
    "unit",
    "every unit that runs has its container",
    needs=("fleet-units", "units", "containers"),
    explains=(ALL, "instance-answers"),
    lag=DOCKER_LAG,
)
def container_runs(now: Snapshot) -> Found:
    for name, machine_name, machine, unit in wanted(now):
        container = container_of(now, name)
        if not container or unit is None or not unit.runs:
            continue
        here = (machine.containers or {}).get(container)
        if here is None or here.state != "running":
            known = "nothing" if machine.containers is None else "there is none" if here is None else here.state
            seen = f"systemd says active, and Docker says {known}"
            paste, subject = on(machine_name, "docker ps --all"), Subject("container", container, machine_name)
            paused = here is not None and here.state == "paused"
            yield Wrong(subject, "running", seen, paste=paste, follows=() if paused else DOCKER_AWAY)


@rule(
    "unit",
    "every app that runs answers on its own machine",
    needs=("containers", "apps"),
    explains=(ALL,),
    lag=AMBASSADOR_LAG,
)
def instance_answers(now: Snapshot) -> Found:
    """As its ambassadors see it, it is a server that is down: this tells an app that hangs from a way that is cut."""
    for service in now.intended.sites:
        for address, (machine, container) in now.running(service).items():
            here = now.machines[machine]
            if not here.apps.get(container):
                paste = on(machine, f"curl --head --max-time 2 http://{address}/")
                subject = Subject("container", container, machine)
                seen, follows = f"none at {address}", ("container-runs", *DOCKER_AWAY, *LEADS_ELSEWHERE)
                yield Wrong(subject, "an answer of its app, any", seen, paste=paste, follows=follows)


@rule("unit", "no container was ended for want of memory", needs=("containers",))
def container_has_memory(now: Snapshot) -> Found:
    for machine_name, machine in answering(now):
        for container, here in (machine.containers or {}).items():
            if here.out_of_memory:
                seen = f"ended by the kernel at {here.finished}"
                paste = on(machine_name, f"docker inspect {container}")
                subject = Subject("container", container, machine_name)
                yield Wrong(subject, "enough memory", seen, paste=paste, follows=("unit-runs",))


@rule(
    "unit",
    "every container is of the image that the registry has by its unit's tag",
    needs=("fleet-units", "containers", "images", "manifests"),
    explains=OF_ANOTHER_IMAGE,
)
def container_has_image(now: Snapshot) -> Found:
    for name in now.intended.units:
        container, image = container_of(now, name), image_of(options_of(now, name))
        digest = now.outside.images.get(image)
        for machine_name, machine in answering(now):
            here = (machine.containers or {}).get(container)
            if not digest or not here or machine.images is None:
                continue  # that it is not known is for others to find
            held = machine.images.get(here.image, Image())
            if not _is_image(digest, here.image, held):
                paste = on(
                    machine_name, f"docker inspect --format '{{{{.Image}}}}' {container}; docker images --digests"
                )
                subject = Subject("container", container, machine_name)
                expected = f"{image} as the registry has it, {digest[:16]}"
                yield Wrong(subject, expected, _shown(held), paste=paste, follows=OTHER_IMAGE)


def _is_image(digest: str, image_id: str, held: Image) -> bool:
    """Whether an image is the one of that manifest. In containerd's store its id says so, where no tag leads to it."""
    return digest in held.digests or (bool(image_id) and digest.startswith(image_id))


def _shown(image: Image) -> str:
    if not image.digests:
        return "an image that no registry gave, built or loaded there"
    return f"an image of digest {', '.join(digest[:16] for digest in image.digests)}"
