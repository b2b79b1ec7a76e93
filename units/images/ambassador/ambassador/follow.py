"""`follow SERVICE`: the ambassador, a proxy whose servers are the instances of one service that etcd knows.

HAProxy is the proxy; this program starts it, waits at etcd for changes, and tells it its servers through its runtime
socket. While etcd is silent the proxy keeps the servers it has, and for a time to live afterwards, in which sidekicks
renew the registrations that ran out meanwhile; its health checks go on. So it does when a registration ran out and was
not taken back: etcd may have had no quorum to renew it in. A value that is no registration is passed over,
with a line that says so; the others count. Without any instance the proxy answers 503.

Environment: DOMAIN, the host name that the service's instances answer to; PATIENCE, how many times as long limits are.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ambassador.etcd import KEY_NOT_FOUND, Etcd, EtcdRefused, EtcdSilent
from ambassador.register import TIME_TO_LIVE

ETCD = "etcd:2379"
CONFIGURATION = "/etc/haproxy/service.cfg"
SOCKET = "/run/haproxy.sock"
# as many as the configuration has places for
PLACES = [f"instances/instance{number}" for number in range(1, 17)]
# a watch is renewed before anything between here and etcd takes it for dead
WATCH = 60.0
AGAIN = 0.5
RAN_OUT = "expire"  # as etcd calls it
DRAIN = 8.0  # before Docker, which stops it, loses patience

MAINTENANCE = "MAINT"  # the state of a place that is empty

Address = tuple[str, int]


class Server(NamedTuple):
    """A place of the proxy: `192.0.2.1:49153`, and UP, DOWN or MAINT."""

    address: str
    state: str


class ProxyEnded(Exception):
    """The proxy is no more. No OSError, which those who ask over the network would take for an answer's fault."""


class ProxySilent(Exception):
    """The proxy took no command: it is about to end, or is not up yet."""


def instances(node: Mapping[str, Any]) -> tuple[set[Address], list[str]]:
    """The addresses that the keys of a service's directory hold, and a line for each value that is none."""
    found: set[Address] = set()
    malformed = []
    for key in node.get("nodes") or ():
        try:
            found.add(_address(key))
        except (ValueError, KeyError, TypeError, RecursionError) as wrong:
            named = str(key.get("key")).encode("unicode_escape").decode()
            malformed.append(f"{named} passed over: {wrong!r:.200} in {key.get('value')!r:.200}")
    return found, malformed


def _address(key: Mapping[str, Any]) -> Address:
    value = json.loads(key["value"])
    host, port = value["host"], value["port"]
    # an address and no name: a proxy that looked one up would wait for it
    if not isinstance(host, str) or type(port) is not int or not 0 < port < 65536:
        raise ValueError("host is not text, or port no number from 1 to 65535")
    return str(ipaddress.IPv4Address(host)), port


class Proxy:
    """HAProxy, through its runtime socket."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._places: dict[str, Address] = {}

    @property
    def served(self) -> set[Address]:
        return set(self._places.values())

    def serve(self, wanted: Iterable[Address]) -> list[str]:
        """Makes these addresses its servers; gives a line for each change. Requests under way go on."""
        wanted = set(wanted)
        lines = []
        for place, address in list(self._places.items()):
            if address not in wanted:
                self._take_out(place)
                del self._places[place]
                lines.append(f"{address[0]}:{address[1]} left")
        for address in sorted(wanted - self.served):
            free = [place for place in PLACES if place not in self._places]
            if not free:
                lines.append(f"{address[0]}:{address[1]} has no place: {len(PLACES)} instances at most")
                break
            place = free[0]
            self._put_in(place, address)
            self._places[place] = address
            lines.append(f"{address[0]}:{address[1]} came")
        return lines

    def _put_in(self, place: str, address: Address) -> None:
        host, port = address
        self._tell(place, f"addr {host} port {port}", lambda server: server.address == f"{host}:{port}")
        # down until its first check has passed: a server that comes would be taken for healthy meanwhile
        self._tell(place, f"state ready; set server {place} health down", lambda server: server.state != MAINTENANCE)

    def _take_out(self, place: str) -> None:
        self._tell(place, "state maint", lambda server: server.state == MAINTENANCE)

    def _tell(self, place: str, command: str, obeyed: Callable[[Server], bool]) -> None:
        """Gives one command about a place. Whether it was obeyed is read from the proxy's own table: what it answers
        differs from version to version, after success too. Raises ProxySilent."""
        answer = told(f"set server {place} {command}", self._path)
        server = servers(self._path).get(place)
        if server is None or not obeyed(server):
            raise ProxySilent(f"set server {place} {command}: {answer or server}")


def servers(path: str = SOCKET) -> dict[str, Server]:
    """Place -> what HAProxy says of the server there. Raises ProxySilent."""
    # a CSV of HAProxy's own, its head behind a number sign
    rows = csv.DictReader(told("show stat instances 4 -1", path).removeprefix("# ").splitlines())
    return {f"{row['pxname']}/{row['svname']}": Server(row["addr"], row["status"].split()[0]) for row in rows}


def told(command: str, path: str = SOCKET) -> str:
    """What HAProxy answers to a command at its runtime socket. Raises ProxySilent."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(path)
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(4096), b"")).decode().strip()
    except OSError as failed:
        raise ProxySilent(str(failed)) from failed


def follow(etcd: Etcd, service: str, proxy: Proxy, spare: float = TIME_TO_LIVE) -> None:
    """Keeps the proxy's servers those of the service, for ever; `spare` is how many seconds after a silence of etcd, or
    a registration that ran out, nobody is taken out."""
    directory = f"/services/{service}"
    said: set[str] = set()
    silent, spared_until = False, 0.0
    while True:
        try:
            try:
                answer = etcd.get(directory)
                node, index = answer.node, answer.index
            except EtcdRefused as refused:
                if refused.code != KEY_NOT_FOUND:
                    raise
                node, index = {}, refused.index
            if silent:
                silent, spared_until = False, time.monotonic() + spare
            spared = max(spared_until - time.monotonic(), 0)
            addresses, malformed = instances(node)
            lines = [*malformed, *proxy.serve(addresses | proxy.served if spared else addresses)]
            say(line for line in lines if line not in said)
            said = {*malformed, *(line for line in lines if "has no place" in line)}
            silent = etcd.wait(directory, index, spared or WATCH) == RAN_OUT
        except (EtcdSilent, EtcdRefused, ProxySilent) as failed:
            silent = silent or not isinstance(failed, ProxySilent)
            line = f"{type(failed).__name__}: {failed}"
            say([] if line in said else [line])
            said.add(line)
            time.sleep(AGAIN)


def say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="follow", description="A proxy of one service, whose instances etcd knows.")
    parser.add_argument("service")
    arguments = parser.parse_args()
    environment = {**os.environ, "SERVICE": arguments.service}
    haproxy = subprocess.Popen(["haproxy", "-db", "-f", CONFIGURATION], env=environment)
    with contextlib.suppress(KeyboardInterrupt, ProxyEnded):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, _proxy_ended)
        # one that ended before the signal was asked for gives none
        if haproxy.poll() is None:
            follow(Etcd(ETCD), arguments.service, Proxy(), TIME_TO_LIVE * int(os.environ.get("PATIENCE", "1")))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if haproxy.poll() is None:
        haproxy.send_signal(signal.SIGUSR1)  # takes no new connection, and ends with the last request
        with contextlib.suppress(subprocess.TimeoutExpired):
            return haproxy.wait(DRAIN)
        haproxy.kill()
    return haproxy.wait() or os.EX_UNAVAILABLE


def _proxy_ended(number: int, frame: object) -> None:
    raise ProxyEnded


if __name__ == "__main__":
    sys.exit(main())
