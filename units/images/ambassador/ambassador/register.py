"""`register CONTAINER PORT SERVICE`: the sidekick that tells etcd where a container of this machine answers.

Each second the Docker Engine is asked where the container's PORT is published, for a container that starts again gets
another port. The key lives for five seconds (times PATIENCE): a machine that is lost takes its registrations with it.
At SIGTERM, and when the container is gone, the key is removed at once.

The app is asked too, over HTTP. One that has given no answer for ten seconds (times PATIENCE) hangs: its container is
killed, for systemd to start it again. Nobody else would: systemd sees `docker run`, and Docker restarts nothing for
want of health.

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
ENGINE_LIMIT = 2.0  # less than the time to live: a busy engine must not end a registration
APP_LIMIT = 1.0  # of one question, times PATIENCE
HANGS_AFTER = 10.0  # seconds without an answer, times PATIENCE; an app that starts has them too
ETCD = "etcd:2379"
DOCKER = "/var/run/docker.sock"

Address = tuple[str, int]


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


def _asked(method: str, path: str, docker: str) -> tuple[int, Any]:
    """Status and document that the Docker Engine answers with; None for a document that is empty."""
    connection = _UnixConnection(docker, timeout=ENGINE_LIMIT)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
        return response.status, json.loads(body) if response.status != 204 else None
    except (OSError, http.client.HTTPException, ValueError) as failed:
        raise EngineSilent(str(failed) or type(failed).__name__) from failed
    finally:
        connection.close()


def published(container: str, port: int, docker: str = DOCKER) -> Address | None:
    """Host address and port at which a running container's port is published; None when it does not run, or publishes
    no such port to an address. Raises EngineSilent."""
    status, body = _asked("GET", f"/containers/{container}/json", docker)
    if status == 404:
        return None
    if status != 200:
        raise EngineSilent(f"status {status}: {body}")
    try:
        return _binding(body, port)
    except (LookupError, TypeError, AttributeError, ValueError) as wrong:
        raise EngineSilent(f"no description of a container: {wrong!r}") from wrong


def _binding(body: dict[str, Any], port: int) -> Address | None:
    if not body["State"]["Running"]:
        return None
    for binding in (body["NetworkSettings"]["Ports"] or {}).get(f"{port}/tcp") or ():
        # a port that is published to every address says 0.0.0.0 or ::, which nobody elsewhere can connect to
        if binding["HostIp"] not in ("", "0.0.0.0", "::"):
            return binding["HostIp"], int(binding["HostPort"])
    return None


def kill(container: str, docker: str = DOCKER) -> None:
    """Kills a container, a paused one too; one that ended meanwhile needs no killing. Raises EngineSilent."""
    status, body = _asked("POST", f"/containers/{container}/kill", docker)
    if status not in (204, 404, 409):
        raise EngineSilent(f"status {status}: {body}")


def answers(address: Address, within: float) -> bool:
    """Whether who listens there answers a request, however it does."""
    connection = http.client.HTTPConnection(*address, timeout=within)
    try:
        connection.request("HEAD", "/", headers={"User-Agent": "ambassador"})
        connection.getresponse()
        return True
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Watchdog:
    """Notices that an app hangs: one that has given no answer for `hangs_after` seconds. A question takes `limit`
    seconds at most."""

    def __init__(self, hangs_after: float, limit: float) -> None:
        self._hangs_after = hangs_after
        self._limit = limit
        self._address: Address | None = None
        self._silent = 0.0
        self._asked = 0.0

    def hangs(self, address: Address | None) -> bool:
        """Asks the app, where it is anywhere. Once it hangs, it has as long again."""
        before, self._asked = self._asked, time.monotonic()
        if address is None or address != self._address or answers(address, self._limit):
            self._address, self._silent = address, 0.0
            return False
        # what stood still for longer was this program, or its machine
        self._silent += min(self._asked - before, self._limit + 2 * EVERY)
        if self._silent < self._hangs_after:
            return False
        self._silent = 0.0
        return True


class Registration:
    """One instance's key."""

    def __init__(self, etcd: Etcd, key: str, ttl: int) -> None:
        self._etcd = etcd
        self._key = key
        self._ttl = ttl
        self._value = ""

    def update(self, address: Address | None) -> str:
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


def run(registration: Registration, where: Callable[[], Address | None]) -> None:
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


def where_it_answers(container: str, port: int, watchdog: Watchdog) -> Address | None:
    """Where a container's port is published; nowhere when its app hangs, and was killed for that. Raises
    EngineSilent."""
    address = published(container, port)
    if address is None or not watchdog.hangs(address):
        return address
    kill(container)
    print(f"{container} has not answered at {address[0]}:{address[1]} for too long: killed", flush=True)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="register", description="Tells etcd where a container answers.")
    parser.add_argument("container")
    parser.add_argument("port", type=int)
    parser.add_argument("service")
    arguments = parser.parse_args()
    patience = int(os.environ.get("PATIENCE", "1"))
    key = f"/services/{arguments.service}/{os.environ['MACHINE_NAME']}:{arguments.container}"
    registration = Registration(Etcd(ETCD), key, TIME_TO_LIVE * patience)
    watchdog = Watchdog(HANGS_AFTER * patience, APP_LIMIT * patience)
    run(registration, lambda: where_it_answers(arguments.container, arguments.port, watchdog))
    return 0


if __name__ == "__main__":
    sys.exit(main())
