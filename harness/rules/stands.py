"""What stands on what: instances of things, from the ground up.

backing service < what needs it; machine < backing service, where that runs on one
machine < first boot < filter < its network < etcd
machine < first boot < room, filter < docker, etcd < fleet < unit < container < registration < ambassador < site < name
contents < site
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache

from harness.model.placement import Requirements
from harness.model.unit_file import image_of
from harness.rules.finding import Subject, ended_for_good
from harness.rules.schedule import named, options_of, unit_of
from harness.rules.services import services
from harness.rules.units import container_of
from harness.snapshot.data import Snapshot

ROOMS = ("/", "/var/lib/docker", "/var/lib/etcd", "/run", "memory")
# Seconds in which a unit that came from a lost machine is running
MOVED = 60.0
BOUND = ("Requires", "BindsTo", "Requisite", "PartOf", "Wants")


class Foundations:
    """Of one snapshot: all that each subject stands on, directly or not."""

    def __init__(self, now: Snapshot) -> None:
        self._now = now
        self.below = cache(self._below)

    def _below(self, subject: Subject) -> frozenset[Subject]:
        found: set[Subject] = set()
        queue = [subject]
        while queue:
            for other in self._directly(queue.pop()):
                if other not in found and other != subject:
                    found.add(other)
                    queue.append(other)
        return frozenset(found)

    def _directly(self, subject: Subject) -> Iterator[Subject]:
        kind, name, machine = subject
        how = {
            "machine": self._machine, "backing service": self._backing,
            "boot": self._boot, "clock": self._boot, "network": self._network,
            "filter": self._of_boot, "sshd": self._of_boot,
            "room": self._of_boot, "helper files": self._of_boot, "contents of": self._contents, "port": self._port,
            "docker": self._docker, "etcd": self._etcd, "fleet": self._fleet, "unit": self._unit, "image": self._image,
            "container": self._container, "registration": self._registration, "ambassador of": self._ambassador,
            "plan": self._plan, "site": self._site, "name": self._name, "entry point": self._entry_point,
        }.get(kind)  # fmt: skip
        if how is not None:
            yield from how(name, machine)
        elif machine and kind != "machine":
            yield from self._of_boot(name, machine)

    @property
    def _machines(self) -> list[str]:
        return list(self._now.intended.machines)

    def _places(self, unit: str) -> list[str]:
        """Where fleet has a unit that is on one machine, or may have it: all, where it is on none."""
        held = self._now.fleet.units.get(unit) if self._now.fleet else None
        if held is None or not held.machine_id:
            return self._machines
        place, known = named(self._now, held.machine_id), self._now.names.values()
        if place in self._machines:
            return [place]
        return [name for name in self._machines if name not in known] or self._machines

    def _units_of(self, service: str) -> list[str]:
        """The units of its instances, and their sidekicks."""
        own = [f"{service}.service", f"{service}-docker-reg.service"]
        begins = (f"{service}@", f"{service}-docker-reg@")
        return [*own, *(unit for unit in self._now.intended.units if unit.startswith(begins))]

    def _instances(self, service: str) -> list[str]:
        """The machines that instances of a service are on, or may be."""
        placed = {name for unit in self._units_of(service) for name in self._places(unit)}
        placed |= {name for name, machine in self._now.machines.items() if service in (machine.containers or ())}
        return [name for name in self._machines if name in placed]

    def _machine(self, name: str, machine: str) -> Iterator[Subject]:
        yield Subject("ssh-agent")
        here = self._now.machines.get(machine)
        if here and here.through:
            yield Subject("machine", "", here.through)

    def _backing(self, name: str, _: str) -> Iterator[Subject]:
        if name in self._now.outside.backing_on:
            machine = self._now.outside.backing_on[name]
            yield Subject("machine", "", machine)
            yield Subject("network", "", machine)

    def _boot(self, name: str, machine: str) -> Iterator[Subject]:
        yield Subject("machine", "", machine)

    def _network(self, name: str, machine: str) -> Iterator[Subject]:
        yield Subject("machine", "", machine)
        yield Subject("filter", "", machine)

    def _of_boot(self, name: str, machine: str) -> Iterator[Subject]:
        yield Subject("boot", "", machine)

    def _contents(self, name: str, machine: str) -> Iterator[Subject]:
        if machine:
            yield Subject("contents of", name)
            yield Subject("boot", "", machine)
            yield Subject("contents service", "", machine)
        else:
            yield Subject("etcd")

    def _port(self, name: str, machine: str) -> Iterator[Subject]:
        yield Subject("filter", "", machine)
        if name == "80":
            yield Subject("container", "entry", machine)
        if name == "2379":
            yield Subject("etcd", "", machine)

    def _docker(self, name: str, machine: str) -> Iterator[Subject]:
        yield Subject("boot", "", machine)
        yield from (Subject("room", room, machine) for room in ROOMS)

    def _etcd(self, name: str, machine: str) -> Iterator[Subject]:
        if machine:
            yield Subject("network", "", machine)
            yield Subject("boot", "", machine)
            yield from (Subject("room", room, machine) for room in ROOMS)
            return
        # as long as more than half of the members are well, no single one matters to the whole
        members = self._machines[: self._now.intended.members_at_most]
        ill = [name for name in members if not self._is_well(name)]
        if 2 * len(ill) >= len(members):
            yield from (Subject("etcd", "", name) for name in ill)

    def _is_well(self, name: str) -> bool:
        """Whether the etcd of a machine is."""
        machine = self._now.machines.get(name)
        return bool(machine and machine.etcd and machine.etcd.healthy)

    def _fleet(self, name: str, machine: str) -> Iterator[Subject]:
        if machine:
            yield Subject("etcd", "", machine)
            yield Subject("etcd")
        else:
            yield from (Subject("fleet", "", other) for other in self._machines)

    def _unit(self, name: str, machine: str) -> Iterator[Subject]:
        options = options_of(self._now, name)
        others = [
            word
            for section, option, value in options
            if (section, option) in {("Unit", bound) for bound in BOUND}
            for word in value.split()
        ]
        requirements = Requirements.of(name, options)
        peers = requirements.peers
        if machine:
            yield unit_of(name)
            yield from self._lost_lately(name, machine)
            yield from (Subject(kind, "", machine) for kind in ("docker", "fleet", "helper files", "filter"))
            if image := image_of(options):
                yield from (Subject("image", image, where) for where in ("", machine))
            if not self._has(image, machine):
                yield Subject("backing service", "image registry")
            for other in (*others, *peers):
                # a sidekick stands on its app; the app wants it, and goes on without it
                if other in self._now.intended.units and ("Unit", "Wants", other) not in options:
                    yield unit_of(other, machine)
        else:
            yield from (unit_of(peer) for peer in peers)
            # each instance of a global one stands on its own machine's
            places = [] if requirements.is_global else self._places(name)
            yield from (Subject("fleet", "", other) for other in places)

    def _has(self, image: str, machine: str) -> bool:
        """Whether a machine has an image, and so does not ask the registry for it."""
        here = self._now.machines.get(machine)
        images = here.images or {} if here else {}
        return any(f"{self._now.outside.registry}/{image}" in held.tags for held in images.values())

    def _image(self, name: str, machine: str) -> Iterator[Subject]:
        yield Subject("docker", "", machine) if machine else Subject("backing service", "image registry")

    def _lost_lately(self, name: str, machine: str) -> Iterator[Subject]:
        """A unit that began lately may come from a machine that was lost, is cut off or has no fleet any more, and
        still be starting, or have been away."""
        unit = self._now.machines[machine].units.get(name) if machine in self._now.machines else None
        if unit and unit.since and unit.since > self._now.asked - MOVED and not ended_for_good(unit):
            for other, its in self._now.machines.items():
                if its.silent or not self._is_well(other):
                    yield Subject("machine" if its.silent else "network", "", other)
                elif its.fleet is None:
                    yield Subject("fleet", "", other)

    def _container(self, name: str, machine: str) -> Iterator[Subject]:
        yield Subject("docker", "", machine)
        yield Subject("filter", "", machine)  # which its port may be closed by
        for unit in self._now.intended.units:
            if container_of(self._now, unit) == name:
                yield unit_of(unit, machine)

    def _registration(self, name: str, machine: str) -> Iterator[Subject]:
        service, _, key = name.partition("/")
        container = service
        if key:
            machine, _, container = key.partition(":")
        yield Subject("etcd")
        if not machine and not key:  # of a service that runs nowhere
            for unit in self._units_of(service):
                yield unit_of(unit)
                yield from (unit_of(unit, other) for other in self._places(unit))
            yield from (Subject("container", service, other) for other in self._instances(service))
        if machine in self._machines:
            yield Subject("container", container, machine)
            yield Subject("container", f"{service}-docker-reg", machine)
            yield Subject("container", "etcd-amb", machine)

    def _registrations(self, service: str) -> Iterator[Subject]:
        """All that is, or is to be, registered of a service."""
        yield Subject("registration", service)
        yield from (Subject("registration", service, other) for other in self._instances(service))
        keys = (self._now.services or {}).get(service) or {}
        yield from (Subject("registration", f"{service}/{key}") for key in keys)
        # of an app that runs nowhere nothing is registered: its units, and its sidekicks'
        for unit in self._units_of(service):
            yield unit_of(unit)
            yield from (unit_of(unit, other) for other in self._places(unit))

    def _ambassador(self, name: str, machine: str) -> Iterator[Subject]:
        yield Subject("container", f"{name}-dynamic-amb", machine)
        yield Subject("container", "etcd-amb", machine)
        yield from self._registrations(name)

    def _site(self, name: str, machine: str) -> Iterator[Subject]:
        if machine:
            yield Subject("entry point", "", machine)
            yield Subject("filter", "", machine)
        else:
            yield from (Subject("site", name, other) for other in self._walked)
        if machine and name in services(self._now):
            yield Subject("ambassador of", name, machine)
            yield from (Subject("container", name, other) for other in self._instances(name))
        yield from (Subject("contents of", name, other) for other in self._instances(name))
        yield Subject("contents of", name)

    @property
    def _walked(self) -> Collection[str]:
        """The entry points that a site may have been walked through: all, where the address is none of a machine's."""
        at = [name for name, its in self._now.intended.machines.items() if its == self._now.intended.entry_point]
        return at or self._now.intended.entry_points

    def _name(self, name: str, machine: str) -> Iterator[Subject]:
        yield Subject("backing service", "name server")
        yield unit_of("entry-name.service")
        for other in self._places("entry-name.service"):
            yield unit_of("entry-name.service", other)

    def _plan(self, name: str, machine: str) -> Iterator[Subject]:
        if machine:
            yield Subject("machine", "", machine)

    def _entry_point(self, name: str, machine: str) -> Iterator[Subject]:
        if machine:
            yield Subject("container", "entry", machine)
            return
        yield from (Subject("entry point", "", other) for other in self._walked)
