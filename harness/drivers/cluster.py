"""A cluster, with the drivers as its parts: the one place that builds them, for steps and commands alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from harness.drivers.contents import Contents
from harness.drivers.etcd import Etcd
from harness.drivers.fleet import Fleet
from harness.drivers.machines import Machines, open_ports
from harness.drivers.name_server import NameServer
from harness.drivers.services import Services
from harness.drivers.site import Page, Site
from harness.drivers.terraform import Outputs
from harness.drivers.units import UnitStates
from harness.record.log import Recorder
from harness.seams.http import open_session
from harness.seams.process import Runner


class Cluster:
    """What a target's outputs tell of, as `read_outputs` gives them: each time it is asked, for machines are added and
    made again. Connections last as long as the outputs stay the same; results are never kept."""

    def __init__(self, read_outputs: Callable[[], Outputs], recorder: Recorder, process: Runner) -> None:
        self._read_outputs = read_outputs
        self._recorder = recorder
        self._process = process
        self._connections: list[tuple[Outputs, Machines]] = []

    @property
    def outputs(self) -> Outputs:
        return self._read_outputs()

    @property
    def machines(self) -> Machines:
        """Over the kept SSH connections."""
        outputs = self.outputs
        for made_from, kept in self._connections:
            if made_from == outputs:
                return kept
        self._connections.append((outputs, Machines(outputs, self._recorder)))
        return self._connections[-1][1]

    def close(self) -> None:
        """Ends the connections."""
        for _, machines in self._connections:
            machines.close()
        self._connections.clear()

    @property
    def etcd(self) -> Etcd:
        return Etcd(self.machines)

    @property
    def fleet(self) -> Fleet:
        return Fleet(self.machines)

    @property
    def services(self) -> Services:
        return Services(self.machines)

    @property
    def contents(self) -> Contents:
        return Contents(self.machines)

    @property
    def name_server(self) -> NameServer:
        return NameServer(self.outputs.name_server, self._process)

    @property
    def sites(self) -> dict[str, Site]:
        """Name -> site, through the entry point."""
        outputs = self.outputs
        session = open_session(outputs.entry_point, outputs.sites.values(), self._recorder)
        return {name: Site(name, domain, session) for name, domain in outputs.sites.items()}

    def site_at(self, name: str, address: str) -> Site:
        """A site, asked at an address that is not the entry point's."""
        sites = self.outputs.sites
        return Site(name, sites[name], open_session(address, sites.values(), self._recorder))

    def page_of(self, domain: str) -> Page:
        """What the entry point answers to a host name, be it a site's or nobody's."""
        return Site(domain, domain, open_session(self.outputs.entry_point, [domain], self._recorder)).fetch("/")

    def unit_states(self, names: Collection[str]) -> UnitStates:
        return UnitStates(self.fleet, self.machines, names)

    def open_ports(self, ports: Iterable[int]) -> dict[str, list[int]]:
        """Machine -> those of the ports that are open to the outside."""
        return open_ports(self.machines.addresses, ports)
