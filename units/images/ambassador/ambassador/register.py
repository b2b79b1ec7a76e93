"""`register CONTAINER PORT SERVICE`: the sidekick that tells etcd where a container of this machine answers.

Each second the Docker Engine is asked where the container's PORT is published, for a container that starts again gets
another port. The key lives for five seconds (times PATIENCE): a machine that is lost takes its registrations with it.
At SIGTERM, and when the container is gone, the key is removed at once.

Environment: MACHINE_NAME, and PATIENCE where it is not 1.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from ambassador.etcd import Etcd, EtcdRefused, EtcdSilent

EVERY = 1.0
TIME_TO_LIVE = 5
# less than the time to live, which is how long ambassadors wait for what ran out: neither a busy engine nor an etcd
# that had no quorum must end a registration
ENGINE_LIMIT = ETCD_LIMIT = 2.0
ETCD = "etcd:2379"
DOCKER = "/var/run/docker.sock"


class EngineSilent(Exception):
    """The Docker Engine gave no answer that could be read: where the container is, nobody knows."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def published(container: str, port: int, docker: str = DOCKER) -> tuple[str, int] | None:
    """Host address and port at which a running container's port is published; None when it does not run, or publishes
    no such port to an address. Raises EngineSilent."""
    connection = _UnixConnection(docker, timeout=ENGINE_LIMIT)
    try:
        connection.request("GET", f"/containers/{container}/json")
        response = connection.getresponse()
        body = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as failed:
        raise EngineSilent(str(failed) or type(failed).__name__) from failed
    finally:
        connection.close()
    if response.status == 404:
        return None
    if response.status != 200:
        raise EngineSilent(f"status {response.status}: {body}")
    try:
        return _binding(body, port)
    except (LookupError, TypeError, AttributeError, ValueError) as wrong:
        raise EngineSilent(f"no description of a container: {wrong!r}") from wrong


def _binding(body: dict[str, Any], port: int) -> tuple[str, int] | None:
    if not body["State"]["Running"]:
        return None
    for binding in (body["NetworkSettings"]["Ports"] or {}).get(f"{port}/tcp") or ():
        # a port that is published to every address says 0.0.0.0 or ::, which nobody elsewhere can connect to
        if binding["HostIp"] not in ("", "0.0.0.0", "::"):
            return binding["HostIp"], int(binding["HostPort"])
    return None


class Registration:
    """One instance's key."""

    def __init__(self, etcd: Etcd, key: str, ttl: int) -> None:
        self._etcd = etcd
        self._key = key
        self._ttl = ttl
        self._value = ""

    def update(self, address: tuple[str, int] | None) -> str:
        """Makes the key say where the instance answers (None: nowhere); gives a line when that is news."""
        value = "" if address is None else json.dumps({"host": address[0], "port": address[1]})
        if not value:
            if not self._value:
                return ""
            self.remove()
            return f"{self._key} removed: the container does not run"
        if value == self._value and self._etcd.refresh(self._key, value, self._ttl):
            return ""
        # before etcd answers: a signal that comes meanwhile finds what is to be removed
        self._value = value
        self._etcd.put(self._key, value, self._ttl)
        return f"{self._key} = {value}"

    def keep(self) -> None:
        """Lets the key live on as it is: whether the container runs cannot be asked just now."""
        if self._value:
            self._etcd.refresh(self._key, self._value, self._ttl)

    def remove(self) -> None:
        """Removes the key, if it is still what this registration made of it."""
        if self._value:
            self._etcd.delete(self._key, self._value)
            self._value = ""


def run(registration: Registration, where: Callable[[], tuple[str, int] | None]) -> None:
    """Keeps the registration true until SIGTERM or SIGINT, then removes it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    said = ""
    try:
        while True:
            try:
                line = registration.update(where())
            except (EtcdSilent, EtcdRefused) as failed:
                line = f"etcd: {failed}"
            except EngineSilent as failed:
                line = f"the Docker Engine: {failed}"
                with contextlib.suppress(EtcdSilent, EtcdRefused):
                    registration.keep()
            if line and line != said:
                print(line, flush=True)
            said = line or said
            time.sleep(EVERY)
    except KeyboardInterrupt:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    try:
        registration.remove()
    except (EtcdSilent, EtcdRefused) as failed:
        print(f"the registration stays until its time is over: etcd: {failed}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="register", description="Tells etcd where a container answers.")
    parser.add_argument("container")
    parser.add_argument("port", type=int)
    parser.add_argument("service")
    arguments = parser.parse_args()
    patience = int(os.environ.get("PATIENCE", "1"))
    key = f"/services/{arguments.service}/{os.environ['MACHINE_NAME']}:{arguments.container}"
    registration = Registration(Etcd(ETCD, ETCD_LIMIT), key, TIME_TO_LIVE * patience)
    run(registration, lambda: published(arguments.container, arguments.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
