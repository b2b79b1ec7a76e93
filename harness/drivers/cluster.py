"""A cluster, with the drivers as its parts: the one place that builds them, for steps and commands alike."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterable
from functools import cached_property

from harness.drivers.contents import Contents
from harness.drivers.etcd import Etcd, Registration
from harness.drivers.machines import Machines, open_ports
from harness.drivers.name_server import NameServer
from harness.drivers.services import Services
from harness.drivers.site import Page, Site
from harness.drivers.terraform import Outputs
from harness.drivers.units import UnitStates
from harness.record.log import Recorder
from harness.seams.http import TIMEOUTS, open_session
from harness.seams.process import Runner


class Connections:
    """The SSH connections to machines, kept for all who ask for the same outputs."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._kept: list[tuple[Outputs, Machines]] = []

    def machines(self, outputs: Outputs) -> Machines:
        for made_from, kept in self._kept:
            if made_from == outputs:
                return kept
        self._kept.append((outputs, Machines(outputs, self.recorder)))
        return self._kept[-1][1]

    def close(self) -> None:
        for _, machines in self._kept:
            machines.close()
        self._kept.clear()

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class Cluster:
    """What a target's outputs tell of, as they are when a part of it is first asked for. Results are never kept."""

    def __init__(self, read_outputs: Callable[[], Outputs], connections: Connections, process: Runner) -> None:
        self._read_outputs = read_outputs
        self._connections = connections
        self.recorder = connections.recorder
        self._process = process

    @cached_property
    def outputs(self) -> Outputs:
        return self._read_outputs()

    @cached_property
    def machines(self) -> Machines:
        return self._connections.machines(self.outputs)

    @cached_property
    def etcd(self) -> Etcd:
        return Etcd(self.machines)

    @cached_property
    def units(self) -> UnitStates:
        return UnitStates(self.machines)

    @cached_property
    def services(self) -> Services:
        return Services(self.machines)

    @cached_property
    def contents(self) -> Contents:
        return Contents(self.machines)

    @cached_property
    def name_server(self) -> NameServer:
        return NameServer(self.outputs.name_server, self._process)

    @cached_property
    def sites(self) -> dict[str, Site]:
        """Name -> site, through the entry point."""
        outputs = self.outputs
        session = open_session(outputs.entry_point, outputs.sites.values(), self.recorder)
        return {name: Site(name, domain, session) for name, domain in outputs.sites.items()}

    def site_at(self, name: str, address: str, timeouts: tuple[float, float] = TIMEOUTS) -> Site:
        """A site, asked at an address that is not the entry point's; `timeouts` are seconds to connect, and between two
        bytes."""
        sites = self.outputs.sites
        return Site(name, sites[name], open_session(address, sites.values(), self.recorder, timeouts=timeouts))

    def page_of(self, domain: str, timeouts: tuple[float, float] = TIMEOUTS) -> Page:
        """What the entry point answers to a host name, be it a site's or nobody's."""
        session = open_session(self.outputs.entry_point, [domain], self.recorder, timeouts=timeouts)
        return Site(domain, domain, session).fetch("/")

    def registration(self, url: str) -> Registration:
        """What a discovery URL says; asked of the machines where the service is on one of them, else from here."""
        here = urllib.parse.urlsplit(url).hostname in self.outputs.machines.values()
        return Registration.on(self.machines, url) if here else Registration.at(url, self.recorder)

    def open_ports(self, ports: Iterable[int]) -> dict[str, list[int]]:
        """Machine -> those of the ports that are open to the outside."""
        return open_ports(self.machines.addresses, ports)
