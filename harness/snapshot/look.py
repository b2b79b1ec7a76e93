"""Takes snapshots: asks every machine, the cluster and the outside side by side, each for all that it shows."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from harness.drivers.cluster import Cluster
from harness.drivers.etcd import KEY_NOT_FOUND
from harness.errors import CommandFailed, HarnessError
from harness.model.registration import address_of
from harness.seams.background import begun, result_by
from harness.seams.patience import patience
from harness.seams.ssh import MachineUnreachable
from harness.snapshot import reading
from harness.snapshot.data import (
    PARTS,
    Fleet,
    FleetMachine,
    FleetUnit,
    Intended,
    Machine,
    Registration,
    Release,
    Snapshot,
)
from harness.snapshot.outside import OutsideView


def _script(name: str) -> str:
    """What is run on machines; comments are for people who read the file."""
    lines = (Path(__file__).parent / name).read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.lstrip().startswith("#"))


COLLECT, OPERATOR = _script("collect.sh"), _script("operator.sh")
# Units of the machine itself, which the cluster stands on
SYSTEM_UNITS = ("first-boot.service", "filter.service", "ssh.service", "etcd.service", "fleet.socket",
                "fleet.service", "docker.service", "contents-source.socket", "contents.service")  # fmt: skip
# Machines that are asked for what the cluster as a whole knows: one may be silent, or its etcd
WHOLE_ASKED = 3
# Machines that are asked at once, for each processor here: to answer costs each 0.4 s of one, and where they share a
# processor, more of them make each other late; and the seconds after which the next ones are asked all the same
AT_ONCE, NEXT_AFTER = 5, 3.0
# Parts that are not asked for in every look
COSTLY = ("plan", "walks", "ports")
# Seconds for one look; and for a machine that was silent in the look before
LOOK_LIMIT, ASK_AGAIN = 90.0, 1.0


class Printed(NamedTuple):
    """What a machine printed, when it was asked, and when it had answered; why it is silent (see Machine)."""

    text: str
    sent: float
    received: float
    silent: str = ""
    refused: str = ""
    through: str = ""


class Looker:
    """Takes snapshots of one cluster.

    `intended` tells what is intended now; `backing` are the services that the cluster was made with, name -> URL.
    `plan` gives what Terraform would change; `kernel` the alarms in the kernel's log since a time (seconds since the
    epoch), where the machines do not see it themselves. Both may raise HarnessError; `kernel` raises Misconfigured
    where nobody here may read it.
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
        # what was asked of a machine and is not answered yet: it is not asked a second time beside that
        self._asking: dict[str, Future[Printed]] = {}

    def look(
        self,
        number: int,
        since: float,
        before: Snapshot | None = None,
        *,
        costly: bool = True,
        within: float = LOOK_LIMIT,
    ) -> Snapshot:
        """The cluster as it is now; lines of the journal from `since` on. What is costly (walking the sites, closed
        ports, Terraform's plan, what serves the operator's user) is looked at where that is asked for, and else as it
        was in the look `before`.

        Who has not answered `within` so many seconds is silent; a walk, or a plan, that has not ended is a question
        without an answer.
        """
        asked, ends = time.time(), time.monotonic() + within * patience()
        kernel = partial(self._kernel, since) if self._kernel else None
        outside = OutsideView(self._cluster, self.intended, self._backing, kernel, costly=costly)
        plan = begun(self._planned) if costly and self._plan else None
        printed = self._machines(since, before, within, costly=costly)
        answers = {name: _waited_for(future, name, before, asked, ends) for name, future in printed.items()}
        machines = {name: _machine(self.intended, answer) for name, answer in answers.items()}
        if before and not costly:
            machines = {name: _with_operator(it, before.machines.get(name)) for name, it in machines.items()}
        seen = outside.answers(machines, before.outside if before else None, ends)
        planned = result_by(plan, ends) if plan else before.plan if before else None
        asked_for = outside.asked | ({"plan"} if plan else set())
        # what is costly is carried over
        asked_for |= {part for part in COSTLY if before and part not in before.unasked}
        # an etcd that is cut off from the others remembers what was
        well = sorted(answers, key=lambda name: not ((etcd := machines[name].etcd) and etcd.healthy))
        whole = [(name, reading.Parts(answers[name].text)) for name in well if "@@ fleet-units" in answers[name].text]
        return Snapshot(
            number=number,
            asked=asked,
            seconds=round(time.time() - asked, 3),
            intended=self.intended,
            machines=machines,
            fleet=_first(whole, lambda name, parts: _fleet(name, parts, self.intended)),
            services=_first(whole, lambda _, parts: _services(parts)),
            deployed=_first(whole, lambda _, parts: _deployed(parts)),
            outside=seen,
            plan=planned,
            unasked=tuple(part for part in PARTS if part not in asked_for),
        )

    def listens(self, names: Collection[str]) -> bool:
        """Whether the sshd of each of these machines takes connections from here."""
        found = self._cluster.open_ports([22])
        return all(found.get(name) for name in names)

    def _machines(
        self, since: float, before: Snapshot | None, within: float, *, costly: bool
    ) -> dict[str, Future[Printed]]:
        machines = self._cluster.machines
        whole = list(self.intended.machines)[:WHOLE_ASKED]
        units = " ".join([*SYSTEM_UNITS, *self.intended.units])
        members = " ".join(list(self.intended.machines.values())[: self.intended.members_at_most])
        known = {name: machine.contents for name, machine in before.machines.items()} if before else {}
        at_once = AT_ONCE * (os.cpu_count() or 1)
        places = threading.Semaphore(at_once)
        # all are asked in the first half of the time
        turn = min(NEXT_AFTER, within / 2 / (len(self.intended.machines) // at_once + 1)) * patience()

        def in_turn(name: str, before_it: int) -> Printed:
            # those that are asked already and do not answer hold nobody up for long
            mine = places.acquire(timeout=before_it // at_once * turn)
            try:
                return ask(name)
            finally:
                if mine:
                    places.release()

        def ask(name: str) -> Printed:
            sites = " ".join(_with_digest(site, known.get(name, {}).get(site)) for site in self.intended.sites)
            words = (f"{since:.0f}", units, sites, members, "whole" if name in whole else "")
            command = machines[name].backend.get_command("sudo sh -c %s collect %s %s %s %s %s", COLLECT, *words)
            if costly:
                command = machines[name].backend.get_command("sh -c %s; ", OPERATOR) + command
            sent = time.time()
            try:
                return Printed(machines.run(name, command, kept=0), sent, time.time())
            except CommandFailed as failed:
                refused = "sudo" if re.search("^sudo: ", failed.stderr, re.MULTILINE) else ""
                silent = "" if "@@ identity " in failed.stdout else failed.stderr.strip() if refused else str(failed)
                return Printed(failed.stdout, sent, time.time(), silent, refused)
            except MachineUnreachable as silent:
                through = "" if silent.where == name else silent.where
                return Printed("", sent, time.time(), str(silent), silent.refused, through)
            except HarnessError as failed:
                return Printed("", sent, time.time(), str(failed))

        for index, name in enumerate(self.intended.machines):
            if name not in self._asking or self._asking[name].done():
                self._asking[name] = begun(partial(in_turn, name, index))
        return {name: self._asking[name] for name in self.intended.machines}

    def _planned(self) -> tuple[str, ...]:
        assert self._plan is not None
        try:
            return tuple(self._plan())
        except HarnessError as failed:
            return (f"no plan: {failed}",)


# -- what they say, as data ------------------------------------------------------------------------------------------


def _with_digest(site: str, known: Release | None) -> str:
    return f"{site}:{known.stamp}:{known.digest}" if known else site


def _waited_for(future: Future[Printed], name: str, before: Snapshot | None, asked: float, ends: float) -> Printed:
    """What a machine printed. One whose silence was waited for in the look before is waited for shortly only. All are
    `asked` at once: who is waited for last was as long silent."""
    then = before.machines.get(name) if before else None
    if then is not None and then.silent and then.seconds >= ASK_AGAIN:
        again = result_by(future, time.monotonic() + ASK_AGAIN * patience())
        return again or Printed("", asked, time.time(), then.silent, then.refused, then.through)
    return result_by(future, ends) or Printed("", asked, time.time(), f"machine {name} did not answer in time")


def _with_operator(machine: Machine, before: Machine | None) -> Machine:
    """With what serves the operator's user there, as it was when that was asked last."""
    return machine if machine.silent or not before else replace(machine, operator=before.operator)


def _machine(intended: Intended, it: Printed) -> Machine:
    if it.silent:
        seconds = round(it.received - it.sent, 3)
        return Machine(asked=it.sent, seconds=seconds, silent=it.silent, refused=it.refused, through=it.through)
    return reading.machine(it.text, it.sent, it.received, intended.helpers)


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
                value=str(node.get("value", ""))[:200], address=address_of(node.get("value")), ttl=node.get("ttl")
            )
            for node in service.get("nodes") or ()
        }
    return found


def _deployed(parts: reading.Parts) -> dict[str, Release]:
    found = {}
    for node in _nodes(parts.texts["deployed"]):
        version, _, digest = str(node.get("value", "")).partition(" ")
        found[node["key"].rpartition("/")[2]] = Release(version=version, digest=digest)
    return found
