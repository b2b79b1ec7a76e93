"""Takes snapshots: asks every machine, the cluster and the outside side by side, each for all that it shows."""

from __future__ import annotations

import hashlib
import json
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from harness.drivers.cluster import Cluster
from harness.drivers.etcd import KEY_NOT_FOUND
from harness.drivers.site import Page, Site
from harness.errors import CommandFailed, HarnessError, PlatformWrong
from harness.model import links
from harness.seams.http import open_session
from harness.seams.patience import patience
from harness.seams.wait import NotAnswering
from harness.snapshot import reading
from harness.snapshot.data import (
    Answer,
    Fleet,
    FleetMachine,
    FleetUnit,
    Intended,
    Machine,
    Outside,
    Registration,
    Release,
    Snapshot,
    Walk,
)

# comments are for people who read the file
COLLECT = "".join(
    line
    for line in (Path(__file__).parent / "collect.sh").read_text().splitlines(keepends=True)
    if not line.lstrip().startswith("#")
)
# Units of the machine itself, which the cluster stands on
SYSTEM_UNITS = ("first-boot.service", "filter.service", "ssh.service", "etcd.service", "fleet.socket",
                "fleet.service", "docker.service", "contents-source.socket", "contents.service")  # fmt: skip
NAME_SERVER = "name server"
STRANGER = "nobody.example"
# Seconds for one request to a site, or to a backing service
ASK_LIMIT = 3.0
# Machines that are asked for what the cluster as a whole knows: one may be silent, or its etcd
WHOLE_ASKED = 3
# Seconds for a machine that was silent in the look before
ASK_AGAIN = 1.0

# What a machine printed; when it was asked and had answered; why it is silent, or ""
Printed = tuple[str, float, float, str]


class Looker:
    """Takes snapshots of one cluster.

    `intended` tells what is intended now; `backing` are the services that the cluster was made with, name -> URL.
    `plan` gives what Terraform would change; `kernel` the alarms in the kernel's log since a time (seconds since the
    epoch), where the machines do not see it themselves. Both may raise HarnessError.
    """

    def __init__(
        self,
        cluster: Cluster,
        intended: Intended,
        backing: Mapping[str, str],
        plan: Callable[[], Iterable[str]] | None = None,
        kernel: Callable[[float], Iterable[str]] | None = None,
    ) -> None:
        self._cluster = cluster
        self.intended = intended
        self._backing = backing
        self._plan = plan
        self._kernel = kernel

    def look(self, number: int, since: float, before: Snapshot | None = None, *, costly: bool = True) -> Snapshot:
        """The cluster as it is now; lines of the journal from `since` on. What is costly (walking the sites, closed
        ports, Terraform's plan) is looked at where that is asked for, and else as it was in the look `before`."""
        asked, pool = time.time(), ThreadPoolExecutor(max_workers=64)
        try:
            ports = pool.submit(self._ports) if costly else None
            plan = pool.submit(self._planned) if costly and self._plan else None
            kernel = pool.submit(self._alarms, since) if self._kernel else None
            backing = {name: pool.submit(_unanswered, url) for name, url in self._backing.items()}
            printed = self._machines(pool, since)
            sites = {
                site: {name: pool.submit(self._answer, site, address) for name, address in self._addresses.items()}
                for site in self._cluster.outputs.sites
            }
            stranger = pool.submit(_asked, lambda: self._cluster.page_of(STRANGER))
            names = {domain: pool.submit(self._name, domain) for domain in self._named}
            texts = {name: _waited_for(future, name, before) for name, future in printed.items()}
            machines = {name: _machine(self.intended, *text) for name, text in texts.items()}
            answers = {site: {n: future.result() for n, future in asked_.items()} for site, asked_ in sites.items()}
            walks = self._walks(pool, machines, answers) if costly else before.outside.walks if before else None
            outside = Outside(
                ports=ports.result() if ports else before.outside.ports if before else None,
                names={name: future.result()[0] for name, future in names.items()} if names else None,
                sites=answers,
                stranger=stranger.result(),
                walks=walks,
                backing={
                    **{name: future.result() for name, future in backing.items()},
                    **({NAME_SERVER: max(future.result()[1] for future in names.values())} if names else {}),
                },
                kernel=kernel.result() if kernel else None,
            )
            planned = plan.result() if plan else before.plan if before else None
        finally:
            pool.shutdown(wait=False)  # who is not waited for any more may still be asking
        whole = [(name, reading.Parts(text)) for name, (text, _, _, _) in texts.items() if "@@ fleet-units" in text]
        return Snapshot(
            number=number,
            asked=asked,
            seconds=round(time.time() - asked, 3),
            intended=self.intended,
            machines=machines,
            fleet=_first(whole, lambda name, parts: _fleet(name, parts, self.intended)),
            services=_first(whole, lambda _, parts: _services(parts)),
            deployed=_first(whole, lambda _, parts: _deployed(parts)),
            outside=outside,
            plan=planned,
        )

    @property
    def _addresses(self) -> Mapping[str, str]:
        return self.intended.machines

    @property
    def _named(self) -> list[str]:
        """Host names that the cluster's name server is asked for; none where it has no name server."""
        return list(self.intended.sites.values()) if self.intended.name_server else []

    # -- the machines ------------------------------------------------------------------------------------------------

    def _machines(self, pool: ThreadPoolExecutor, since: float) -> dict[str, Future[Printed]]:
        machines = self._cluster.machines
        whole = list(self._addresses)[:WHOLE_ASKED]
        units = " ".join([*SYSTEM_UNITS, *self.intended.units])
        sites = " ".join(self.intended.sites)

        def ask(name: str) -> tuple[str, float, float, str]:
            words = (f"{since:.0f}", units, sites, "whole" if name in whole else "")
            command = machines[name].backend.get_command("sudo sh -c %s collect %s %s %s %s", COLLECT, *words)
            sent = time.time()
            try:
                return machines.run(name, command), sent, time.time(), ""
            except CommandFailed as failed:
                return failed.stdout, sent, time.time(), "" if failed.stdout else str(failed)
            except HarnessError as silent:
                return "", sent, time.time(), str(silent)
            except UnicodeDecodeError as junk:
                return "", sent, time.time(), f"its answer is no text: {junk}"

        return {name: pool.submit(ask, name) for name in self._addresses}

    # -- from outside ------------------------------------------------------------------------------------------------

    def _ports(self) -> dict[str, tuple[int, ...]]:
        ports = (*self.intended.ports, *self.intended.closed)
        return {name: tuple(found) for name, found in self._cluster.open_ports(ports).items()}

    def _planned(self) -> tuple[str, ...]:
        assert self._plan is not None
        try:
            return tuple(self._plan())
        except HarnessError as failed:
            return (f"no plan: {failed}",)

    def _alarms(self, since: float) -> tuple[str, ...] | None:
        assert self._kernel is not None
        try:
            return tuple(self._kernel(since))
        except HarnessError:
            return None

    def _answer(self, site: str, address: str) -> Answer:
        return _asked(lambda: self._cluster.site_at(site, address).fetch("/version.txt"))

    def _name(self, domain: str) -> tuple[str, str]:
        """The address that a name leads to, and why the name server does not answer; "" for none."""
        try:
            return self._cluster.name_server.lookup(domain), ""
        except NotAnswering as silent:
            return "", silent.seen
        except PlatformWrong as failed:
            return failed.seen, ""

    def _walks(
        self, pool: ThreadPoolExecutor, machines: Mapping[str, Machine], answers: Mapping[str, Mapping[str, Answer]]
    ) -> dict[str, Walk]:
        """Each site walked once, and what was deployed fetched where the walk did not lead to it; one that does not
        answer at its entry point is not walked."""
        entry = next((name for name, it in self._addresses.items() if it == self.intended.entry_point), "")
        silent = {site: there[entry].failed for site, there in answers.items() if entry in there}
        walking = {
            name: pool.submit(self._walk, site, machines)
            for name, site in self._cluster.sites.items()
            if not silent.get(name)
        }
        found: dict[str, tuple[Walk, dict[str, str]]] = {
            name: walking[name].result() if name in walking else (Walk(pages=0, failed=silent[name]), {})
            for name in self._cluster.sites
        }
        bodies = {name: pages for name, (_, pages) in found.items()}
        return {
            name: Walk(
                pages=walk.pages,
                broken=walk.broken,
                differing=walk.differing,
                failed=walk.failed,
                foreign=tuple(
                    sorted(
                        url
                        for other, theirs in bodies.items()
                        if other != name
                        for url, body in bodies[name].items()
                        if body in theirs.values()
                    )
                ),
            )
            for name, (walk, _) in found.items()
        }

    def _walk(self, site: Site, machines: Mapping[str, Machine]) -> tuple[Walk, dict[str, str]]:
        holds = [name for name, machine in machines.items() if site.name in machine.contents]
        try:
            digests = self._cluster.contents.file_digests(site.name, holds[0]) if holds else {}
            answers, broken = site.walk(len(digests) or None)
            served = {urllib.parse.urlsplit(page.url).path: page for page in answers}
            differing = []
            for path, digest in digests.items():
                url = "/" + urllib.parse.quote(path)
                page = served.get(url) or site.fetch(url)
                if hashlib.sha256(page.body).hexdigest() != digest:
                    differing.append(path)
        except PlatformWrong as failed:
            return Walk(pages=0, failed=str(failed)), {}
        pages = {
            page.url: hashlib.sha256(page.body).hexdigest()
            for page in answers
            if page.status == 200 and links.is_html(page.media_type)
        }
        return Walk(pages=len(answers), broken=tuple(map(str, broken)), differing=tuple(sorted(differing))), pages


def _asked(fetch: Callable[[], Page]) -> Answer:
    try:
        page = fetch()
    except PlatformWrong as failed:
        return Answer(failed=failed.seen or str(failed))
    version = page.text.strip()[:64] if page.media_type == "text/plain" else ""
    return Answer(status=page.status, version=version, media_type=page.media_type)


def _unanswered(url: str) -> str:
    """Why a backing service does not answer; "" where it does."""
    limit = ASK_LIMIT * patience()
    try:
        host = urllib.parse.urlsplit(url).hostname or ""
        address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
        with open_session(str(address), [host], None, timeouts=(limit, limit)) as session:
            status = session.get(url).status_code
    except (OSError, ValueError, HarnessError, requests.RequestException) as failed:
        return getattr(failed, "seen", "") or str(failed)
    return "" if status < 500 else f"status {status}"


# -- what they say, as data ------------------------------------------------------------------------------------------


def _waited_for(future: Future[Printed], name: str, before: Snapshot | None) -> Printed:
    """What a machine printed. One whose silence was waited for in the look before is waited for shortly only."""
    then = before.machines.get(name) if before else None
    if then is None or not then.silent or then.seconds < ASK_AGAIN:
        return future.result()
    sent = time.time()
    try:
        return future.result(ASK_AGAIN * patience())
    except TimeoutError:
        return "", sent, time.time(), then.silent


def _machine(intended: Intended, printed: str, sent: float, received: float, silent: str) -> Machine:
    if silent:
        return Machine(asked=sent, seconds=round(received - sent, 3), silent=silent)
    return reading.machine(printed, sent, received, intended.helpers)


def _first(whole: Iterable[tuple[str, reading.Parts]], read: Callable[[str, reading.Parts], Any]) -> Any:
    """What the first machine that can say it says; None where none can."""
    for name, parts in whole:
        try:
            return read(name, parts)
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
            continue
    return None


def _fleet(name: str, parts: reading.Parts, intended: Intended) -> Fleet:
    reported: dict[str, list[str]] = {}
    for item in reading.items(parts.texts["fleet-state"], "states"):
        reported.setdefault(item["name"], []).append(item["machineID"])
    return Fleet(
        asked_of=name,
        machines={
            item["id"]: FleetMachine(address=item.get("primaryIP", ""), metadata=item.get("metadata") or {})
            for item in reading.items(parts.texts["fleet"], "machines")
        },
        units={item["name"]: _unit(item, intended) for item in reading.items(parts.texts["fleet-units"], "units")},
        states={unit: tuple(sorted(ids)) for unit, ids in reported.items()},
    )


def _unit(item: Mapping[str, Any], intended: Intended) -> FleetUnit:
    options = tuple((option["section"], option["name"], option["value"]) for option in item.get("options") or ())
    known = intended.units.get(item["name"])
    return FleetUnit(
        desired=item.get("desiredState", ""),
        current=item.get("currentState", ""),
        machine_id=item.get("machineID", ""),
        options=None if known and known.options == options else options,
    )


def _nodes(text: str) -> list[dict[str, Any]]:
    """The nodes below an etcd directory; none where there is no such directory. Raises ValueError for other errors."""
    body = json.loads(text)
    if body.get("errorCode") == KEY_NOT_FOUND:
        return []
    if "errorCode" in body:
        raise ValueError(body.get("message"))
    return list(body["node"].get("nodes") or ())


def _services(parts: reading.Parts) -> dict[str, dict[str, Registration]]:
    found: dict[str, dict[str, Registration]] = {}
    for service in _nodes(parts.texts["registrations"]):
        found[service["key"].rpartition("/")[2]] = {
            node["key"].rpartition("/")[2]: Registration(
                value=str(node.get("value", ""))[:200], address=_address(node.get("value")), ttl=node.get("ttl")
            )
            for node in service.get("nodes") or ()
        }
    return found


def _address(value: Any) -> str:
    try:
        document = json.loads(value)
        if isinstance(document["host"], str) and type(document["port"]) is int:
            return f"{document['host']}:{document['port']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return ""


def _deployed(parts: reading.Parts) -> dict[str, Release]:
    found = {}
    for node in _nodes(parts.texts["deployed"]):
        version, _, digest = str(node.get("value", "")).partition(" ")
        found[node["key"].rpartition("/")[2]] = Release(version=version, digest=digest)
    return found
