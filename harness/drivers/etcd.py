"""etcd: the cluster's members, and who registered under a discovery URL (v2 keys; etcd 3.4)."""

from __future__ import annotations

import json
import shlex
import socket
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import requests

from harness.drivers.machines import Machines
from harness.errors import AnswerNotUnderstood, CommandFailed, EnvironmentFailed
from harness.record.log import Recorder
from harness.seams.http import LeadsAstray, SiteUnreachable, open_session
from harness.seams.ssh import MachineSilent
from harness.seams.wait import NotAnswering

# etcd 3.4's FAQ advises a cluster of five members in production, and seven at most: each one more makes every write
# slower. With 40 members on one machine the cluster did not come to rest at all.
MEMBERS_AT_MOST = 5
# never by a proxy that the machine may be told of
CURL = "curl --silent --show-error --max-time 3 --noproxy '*'"
ASK = f"{CURL} http://127.0.0.1:2379/health; echo; {CURL} http://127.0.0.1:2379/v2/members"
KEYS = "http://127.0.0.1:2379/v2/keys"
KEY_NOT_FOUND = 100  # etcd's errorCode
CONNECTION_REFUSED = 7  # curl's exit status


@dataclass(frozen=True)
class Registration:
    """What a discovery URL says: how many members it is for, and who registered (name=peer URL)."""

    size: int
    members: list[str]

    @classmethod
    def at(cls, url: str, recorder: Recorder | None) -> Registration:
        """From the discovery service, wherever its name leads: the one name that is looked up, for the service is the
        operator's and not the cluster's. Raises EnvironmentFailed when it does not answer, AnswerNotUnderstood."""
        host = urllib.parse.urlsplit(url).hostname or ""
        try:
            address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
        except OSError as unknown:
            message = f"the discovery service {host} cannot be looked up: {unknown.strerror}"
            raise EnvironmentFailed(message) from unknown
        return cls.read(url, open_session(str(address), [host], recorder))

    @classmethod
    def on(cls, machines: Machines, url: str) -> Registration:
        """From the discovery service of a cluster whose filter lets nobody else ask. Raises CommandFailed when it does
        not answer, AnswerNotUnderstood."""
        return cls._from(url, lambda asked: machines.run(machines.entry_point, f"{CURL} {shlex.quote(asked)}"))

    @classmethod
    def read(cls, url: str, session: requests.Session) -> Registration:
        """From the discovery service. Raises EnvironmentFailed when it does not answer, AnswerNotUnderstood."""

        def ask(asked: str) -> str:
            try:
                # not .json(): its error counts as one of the request
                return session.get(asked, timeout=5).text
            except (SiteUnreachable, LeadsAstray) as refused:
                raise EnvironmentFailed(f"the discovery service does not answer: {refused}") from refused

        return cls._from(url, ask)

    @classmethod
    def _from(cls, url: str, ask: Callable[[str], str]) -> Registration:
        def get(path: str) -> dict[str, Any]:
            answer = ask(url + path)
            try:
                return dict(json.loads(answer)["node"])
            except (ValueError, KeyError, TypeError) as wrong:
                raise AnswerNotUnderstood(url + path, answer, f"no node: {wrong}") from wrong

        # _config is hidden from the listing: names that begin with an underscore are
        size = get("/_config/size").get("value", "")
        if not str(size).isdigit():
            raise AnswerNotUnderstood(url, str(size), "the size is no number")
        return cls(int(size), [node.get("value", "") for node in get("").get("nodes", [])])


class Etcd:
    """The cluster's etcd, asked on its machines: it cannot be reached from outside. Keys are asked of the way in, or of
    another member while the way in has no etcd that runs, or is silent."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    def get(self, key: str, *, quorum: bool = False) -> dict[str, Any] | None:
        """A key such as /services/blog as a v2 node, with all below it; None where there is no such key. What begins
        with an underscore is hidden from the listing of what is above it. With `quorum` as a majority of the members
        has it, and not as the one that is asked does.

        Raises NotAnswering while etcd gives no answer, or has no leader to give one, and AnswerNotUnderstood.
        """
        query = "?recursive=true" + ("&quorum=true" if quorum else "")
        ask = f"{CURL} {shlex.quote(f'{KEYS}{key}{query}')}"
        try:
            answer = self._asked(ask, reads=True)
        except CommandFailed as failed:
            raise NotAnswering.of(failed) from failed
        try:
            body = json.loads(answer)
            code = body.get("errorCode")
            if code is None:
                return {**body["node"]}
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as wrong:
            raise AnswerNotUnderstood(f"etcd's key {key}", answer, repr(wrong)) from wrong
        if code == KEY_NOT_FOUND:
            return None
        raise NotAnswering([ask], "an error of etcd", answer, "", self._machines.entry_point)

    def put(self, key: str, value: str, ttl: int | None = None, instead_of: str | None = None) -> None:
        """Sets a key, for `ttl` seconds where that is given, and only where its value is `instead_of`, where that is.
        Raises CommandFailed when etcd does not take it."""
        lives = "" if ttl is None else f" -d ttl={ttl}"
        self._asked(f"{_put(key, value, instead_of)}{lives}")

    def put_all(self, keys: Mapping[str, str]) -> None:
        """Sets keys in their order, by one command. Raises CommandFailed with the first that etcd does not take."""
        script = "\n".join(["set -e", *(f"{_put(key, value)} >/dev/null" for key, value in keys.items())])
        self._asked("sh", script.encode())

    def delete(self, key: str, instead_of: str | None = None) -> None:
        """Removes a key; one that is gone already is gone. With `instead_of` only where that is its value: raises
        CommandFailed where it is not."""
        url, fail = KEYS + key, ""
        if instead_of is not None:
            url, fail = f"{url}?prevValue={urllib.parse.quote(instead_of)}", "--fail "
        self._asked(f"{CURL} {fail}-X DELETE {shlex.quote(url)}")

    def _asked(self, command: str, data: bytes = b"", *, reads: bool = False) -> str:
        """What a command of curl to the machine's own etcd prints. What a silent machine was told to write it may have
        written: that is not told to another one."""
        names = [self._machines.entry_point]
        names += [name for name in self._machines.names[:MEMBERS_AT_MOST] if name not in names]
        while True:
            try:
                return self._machines.run(names.pop(0), command, data=data)
            except CommandFailed as failed:
                if failed.status_seen != CONNECTION_REFUSED or not names:
                    raise
            except MachineSilent:
                if not reads or not names:
                    raise

    def leader(self) -> str:
        """The machine whose member leads. Raises NotAnswering when none says so."""
        ask = f"{CURL} http://127.0.0.1:2379/v2/stats/self"
        answers = self._machines.on_all(lambda name: self._machines.run(name, ask, ok=range(256)))
        for name, answer in answers.items():
            if '"state":"StateLeader"' in answer:
                return name
        raise NotAnswering([ask], "no leader", str(answers), "", ", ".join(answers))

    def members(self) -> set[str]:
        """Names of the members, as the way in lists them; none while it is not healthy."""
        return _member_names(self._machines.run(self._machines.entry_point, ASK, ok=range(256)))


def _put(key: str, value: str, instead_of: str | None = None) -> str:
    before = "" if instead_of is None else f" --data-urlencode {shlex.quote(f'prevValue={instead_of}')}"
    data = shlex.quote(f"value={value}")
    return f"{CURL} --fail -X PUT {shlex.quote(KEYS + key)}{before} --data-urlencode {data}"


def _member_names(answer: str) -> set[str]:
    """Members that a machine lists; none unless it is healthy."""
    health, _, members = answer.partition("\n")
    try:
        if json.loads(health).get("health") != "true":
            return set()
        return {member["name"] for member in json.loads(members)["members"]}
    except (ValueError, KeyError, AttributeError, TypeError):
        return set()
