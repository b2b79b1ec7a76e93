"""Services: where their instances really answer, what is registered of them in etcd, and what their ambassadors know.

An app's container is named after its unit: `blog` of blog.service, `blog-2` of blog@2.service. Its sidekick keeps the
key /services/SERVICE/MACHINE:CONTAINER; SERVICE-dynamic-amb is the container of a service's ambassador on each entry
point.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Container, Mapping
from dataclasses import dataclass

from harness.drivers.etcd import Etcd
from harness.drivers.machines import Machines
from harness.errors import AnswerNotUnderstood, CommandFailed
from harness.model.registration import address_of
from harness.seams.wait import NotAnswering

APP_PORT = "80/tcp"
# Where containers find etcd
ETCD_OF_CONTAINERS = "etcd:2379"
# What is closed to them: etcd itself, on any machine, and what a cloud tells its machines
CLOSED_TO_CONTAINERS, METADATA_SERVICE = (2379, 2380), "169.254.169.254:80"
# Of the places (HOST:PORT) that are its arguments, those where a connection is taken from inside a container
TAKEN = """
import concurrent.futures, socket, sys
def taken(place):
    host, _, port = place.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        return place
    except OSError:
        return ""
with concurrent.futures.ThreadPoolExecutor(50) as pool:
    print(*pool.map(taken, sys.argv[1:]))
"""


@dataclass(frozen=True)
class Ambassador:
    """What one ambassador says: the addresses (HOST:PORT) that it finds in etcd, the keys that it passes over, and its
    servers with what its health check says of each."""

    registered: frozenset[str]
    malformed: tuple[str, ...]
    servers: Mapping[str, str]

    @property
    def healthy(self) -> set[str]:
        return {address for address, status in self.servers.items() if status == "UP"}


class Services:
    """The services of a cluster."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._etcd = Etcd(machines)

    def published(self, service: str) -> set[str]:
        """Where instances run, HOST:PORT, as the machines' Docker Engines say; every machine is asked."""
        names = f"docker ps --format '{{{{.Names}}}}' | grep -xE '{service}(-[0-9]+)?'"
        ask = (
            f"systemctl is-active --quiet docker && {names} | while read -r c; do docker port $c {APP_PORT}; done; true"
        )
        answers = self._machines.on_all(lambda name: self._machines.run(name, ask).split())
        return {address for addresses in answers.values() for address in addresses}

    def registered(self, service: str) -> set[str]:
        """What etcd holds, HOST:PORT each; "malformed: ..." of a value that is no registration.

        Raises NotAnswering while etcd gives no answer, and AnswerNotUnderstood.
        """
        node = self._etcd.get(f"/services/{service}") or {}
        try:
            return {address_of(below["value"]) or f"malformed: {below['value']}" for below in node.get("nodes", ())}
        except (KeyError, TypeError) as wrong:
            raise AnswerNotUnderstood(f"etcd's keys of {service}", str(node), repr(wrong)) from wrong

    def ambassadors(self, service: str) -> dict[str, Ambassador]:
        """Machine -> what the service's ambassador there says. Raises NotAnswering while one says nothing."""
        ask = f"docker exec {service}-dynamic-amb python3 -m ambassador.show {service}"

        def ask_one(name: str) -> Ambassador:
            try:
                answer = self._machines.run(name, ask)
            except CommandFailed as failed:  # no such container yet, or its proxy is not up
                raise NotAnswering.of(failed) from failed
            try:
                document = json.loads(answer)
                servers = {str(address): str(status) for address, status in document["servers"].items()}
                return Ambassador(frozenset(document["registered"]), tuple(document["malformed"]), servers)
            except (ValueError, KeyError, TypeError, AttributeError) as wrong:
                raise AnswerNotUnderstood(f"the ambassador of {service} on {name}", answer, repr(wrong)) from wrong

        return self._machines.on_all(ask_one, self._machines.entry_points)

    def taken(self, service: str, machines: Container[str]) -> dict[str, set[str]]:
        """Machine -> what the container of the service's ambassador there reaches of etcd and what is closed to it,
        HOST:PORT each; of these machines. Raises NotAnswering where there is no such container."""
        addresses = self._machines.addresses.values()
        etcds = [f"{address}:{port}" for address in addresses for port in CLOSED_TO_CONTAINERS]
        places = shlex.join([ETCD_OF_CONTAINERS, METADATA_SERVICE, *etcds])
        ask = f"docker exec {service}-dynamic-amb python3 -c {shlex.quote(TAKEN)} {places}"

        def ask_one(name: str) -> set[str]:
            try:
                return set(self._machines.run(name, ask).split())
            except CommandFailed as failed:
                raise NotAnswering.of(failed) from failed

        return self._machines.on_all(ask_one, [name for name in self._machines.entry_points if name in machines])

    def inject(self, service: str, name: str, value: str, ttl: int) -> None:
        """Puts a registration that no sidekick made; it is gone after `ttl` seconds."""
        self._etcd.put(f"/services/{service}/{name}", value, ttl)

    def undo(self, service: str, name: str) -> None:
        """Removes a registration that was injected; one whose time was over is gone already."""
        self._etcd.delete(f"/services/{service}/{name}")
