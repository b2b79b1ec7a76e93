"""What a snapshot holds: the whole cluster at one moment, unjudged. Times are seconds since the epoch, by the clock of
the machine that looks unless said otherwise; sizes are bytes.

A part that could not be had is None, or says why; nothing stands for a value that was not seen. Of the parts that not
every snapshot asks for, `unasked` tells those that this one did not: None of another is a question without an answer.

schema.json beside this file is for other programs. It is made again by:

    python -m harness.snapshot.data > harness/snapshot/schema.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import msgspec

SCHEMA = "platform.snapshot/1"
# That an app listens on, in its container
APP_PORT = 80
# Parts that not every snapshot asks for, in words
PARTS = {
    "plan": "Terraform's plan",
    "walks": "the sites, link by link",
    "ports": "ports",
    "kernel": "the kernel's log",
    "names": "the sites' names",
}


class Struct(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of a snapshot; JSON as the schema beside this file describes it."""


# -- what is intended ------------------------------------------------------------------------------------------------


class IntendedUnit(Struct, frozen=True, omit_defaults=True):
    """A unit file: its options as fleet stores them, and the digest (SHA-256) of the text that fleet makes of them."""

    options: tuple[tuple[str, str, str], ...]
    text: str


class Intended(Struct, frozen=True, omit_defaults=True):
    """What the operator's files and the target's outputs say. Of what was not typed yet nothing is intended."""

    machines: Mapping[str, str]  # name -> address
    entry_point: str
    entry_points: tuple[str, ...]  # names of the machines that readers may come in through
    sites: Mapping[str, str]  # name -> host name
    name_server: str
    members_at_most: int
    units: Mapping[str, IntendedUnit]
    started: bool  # whether they are to run
    deployed: tuple[str, ...]  # sites whose contents are to be there
    helpers: Mapping[str, str]  # path below /home/core -> SHA-256
    sshd: Mapping[str, str]  # setting, in lower case -> value
    listening: tuple[int, ...]  # ports that every machine listens on
    ports: tuple[int, ...]  # those that are open to the outside
    closed: tuple[int, ...]  # those that would do harm, and are not


# -- a machine -------------------------------------------------------------------------------------------------------


class Unit(Struct, frozen=True, omit_defaults=True):
    """What systemd says of a unit."""

    load: str
    active: str
    sub: str
    result: str
    restarts: int
    main_pid: int
    exit_code: int  # as waitid(2) has it: 1 exited, 2 killed, ...; 0 while it runs
    exit_status: int
    since: float | None  # of its state, by the machine's clock
    restart: str
    restart_sec: float | None
    start_limit_interval: float | None
    start_limit_burst: int
    fragment: str
    drop_ins: tuple[str, ...]
    needs_reload: bool
    text: str = ""  # SHA-256 of what fleet wrote here

    @property
    def runs(self) -> bool:
        return (self.active, self.sub) == ("active", "running")


class Container(Struct, frozen=True, omit_defaults=True):
    """What Docker says of a container."""

    image: str  # the id that its engine knows it by
    state: str  # running, paused, exited, ...
    ports: Mapping[int, tuple[str, ...]] = {}  # port inside -> HOST:PORT, each
    exit_status: int | None = None
    out_of_memory: bool = False
    finished: str = ""


class Image(Struct, frozen=True, omit_defaults=True):
    """An image of a machine: the tags that lead to it, and the digests (SHA-256) of the manifests it was pulled by."""

    tags: tuple[str, ...] = ()  # HOST:PORT/NAME:TAG
    digests: tuple[str, ...] = ()


class EtcdHere(Struct, frozen=True, omit_defaults=True):
    """What the etcd of a machine says."""

    healthy: bool
    name: str
    role: str  # StateLeader, StateFollower; "" of a proxy
    leader: str
    members: tuple[str, ...]
    leader_changes: int | None = None  # since it began
    peer_failures: int | None = None  # messages to other members that could not be sent, since it began


class Room(Struct, frozen=True, omit_defaults=True):
    """Of a file system: its size and what is free of it."""

    size: int
    free: int


class Line(Struct, frozen=True, omit_defaults=True):
    """A line of the journal; its time by the machine's clock."""

    time: float
    text: str


class Machine(Struct, frozen=True, omit_defaults=True):
    """What a machine shows of itself. `silent` is why it shows nothing; `missing` are the parts that it gave not."""

    asked: float
    seconds: float
    worked: float = 0.0  # of these seconds, those that it took there: the others are the way's
    silent: str = ""
    # `key` where it takes none of the operator's, `too many keys` where it gave up before the right one, `host key`
    # where it shows another than is pinned, `sudo` where that asks the operator for a password
    refused: str = ""
    through: str = ""  # the machine on the way that is silent, where it is not this one
    missing: tuple[str, ...] = ()
    machine_id: str = ""
    boot: str = ""
    host_key: str = ""
    clock_ahead: float = 0.0  # seconds by which its clock is ahead of ours; what the exchange itself explains is not
    state: str = ""  # of systemd as a whole
    failed: tuple[str, ...] = ()  # units
    units: Mapping[str, Unit] = {}
    containers: Mapping[str, Container] | None = None  # None: Docker does not run
    images: Mapping[str, Image] | None = None  # id, as a container has it -> image; None: Docker does not run
    apps: Mapping[str, int] = {}  # container -> the status that its app answers with; 0 of one that says nothing
    ambassadors: Mapping[str, Mapping[str, str]] = {}  # service -> HOST:PORT -> UP or DOWN
    routes: Mapping[str, str] = {}  # of the entry point: host name -> ambassador
    etcd: EtcdHere | None = None
    fleet: tuple[str, ...] | None = None  # ids of the machines that its fleet lists; None: no answer
    reached: Mapping[str, float] = {}  # address of an etcd member's machine -> share of connections that got there
    listening: tuple[tuple[str, str], ...] = ()  # ADDRESS:PORT, program
    filter: str = ""  # digest of the platform's table
    foreign_rules: tuple[str, ...] = ()  # FAMILY TABLE CHAIN: RULE, of those that filter and are not declared
    sshd: Mapping[str, str] = {}
    # what the operator's user asked, without sudo (fleet, docker, fleetctl) -> why it does not serve, "" where it does;
    # None: not asked
    operator: Mapping[str, str] | None = None
    rooms: Mapping[str, Room] = {}  # mount point, and "memory"
    load: float = 0.0  # processes that run or wait to, on average of the last minute
    processors: int = 1
    journal: tuple[Line, ...] = ()
    contents: Mapping[str, Release] = {}  # site -> what is current
    helpers: Mapping[str, str] = {}  # path -> SHA-256, of those that are not as they are intended; "" of a missing one


class Release(Struct, frozen=True, omit_defaults=True):
    """The contents of a site on a machine, or as they were deployed last."""

    version: str
    digest: str
    files: int = 0
    stamp: str = ""  # of the paths, sizes and times of change of its files; none of what was deployed


# -- the cluster as a whole ------------------------------------------------------------------------------------------


class FleetMachine(Struct, frozen=True, omit_defaults=True):
    """A machine as fleet lists it."""

    address: str
    metadata: Mapping[str, str]


class FleetUnit(Struct, frozen=True, omit_defaults=True):
    """A unit of fleet's registry; its options where they are not those that are intended."""

    desired: str
    current: str
    machine_id: str
    options: tuple[tuple[str, str, str], ...] | None = None


class Fleet(Struct, frozen=True, omit_defaults=True):
    """What fleet's registry holds, as `asked_of` answered."""

    asked_of: str
    machines: Mapping[str, FleetMachine]  # id -> machine
    units: Mapping[str, FleetUnit]
    states: Mapping[str, tuple[str, ...]]  # unit -> ids of the machines that report it


class Registration(Struct, frozen=True, omit_defaults=True):
    """A key below /services/SERVICE. `address` is HOST:PORT, "" where the value is no registration."""

    value: str
    address: str
    ttl: int | None = None  # seconds that it has left


# -- from outside ----------------------------------------------------------------------------------------------------


class Answer(Struct, frozen=True, omit_defaults=True):
    """What a request got: its status, or (`failed`) why there is none."""

    status: int = 0
    version: str = ""
    media_type: str = ""
    failed: str = ""


class Walk(Struct, frozen=True, omit_defaults=True):
    """What walking a site from its home page, and fetching each file that was deployed, showed."""

    pages: int
    files: int = 0  # that were deployed, and compared with what is served
    broken: tuple[str, ...] = ()  # links and assets
    # files that are not served as they were deployed; `PATH: 503` of one that got no answer
    differing: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()  # pages that are another site's
    failed: str = ""


class Outside(Struct, frozen=True, omit_defaults=True):
    """What shows where the operator is."""

    ports: Mapping[str, tuple[int, ...]] | None  # machine -> those of the intended and the closed ones that are open
    names: Mapping[str, str] | None  # host name -> address
    sites: Mapping[str, Mapping[str, Answer]]  # site -> entry point (its machine) -> answer
    stranger: Answer | None  # to a name that is no site's
    walks: Mapping[str, Walk] | None
    backing: Mapping[str, str]  # backing service -> why it does not answer, "" where it does
    kernel: tuple[str, ...] | None = None  # alarms in the kernel's log
    kernel_refused: str = ""  # why nobody may read it here, and the line that gives the right
    keys: int | None = None  # in the operator's ssh-agent; None: no agent answers
    backing_on: Mapping[
        str, str
    ] = {}  # backing service -> the machine that it runs on, where it is one of the cluster's
    registry: str = ""  # HOST:PORT of the image registry
    images: Mapping[str, str] = {}  # NAME:TAG -> digest of the manifest that the registry has, "" where it has none


class Snapshot(Struct, frozen=True, omit_defaults=True, tag_field="schema", tag=SCHEMA):
    """The cluster at one moment. Its document begins with its schema."""

    number: int
    asked: float
    seconds: float
    intended: Intended
    machines: Mapping[str, Machine]
    fleet: Fleet | None  # None: nobody answered
    services: Mapping[str, Mapping[str, Registration]] | None  # service -> key; None: etcd did not answer
    deployed: Mapping[str, Release] | None  # site -> what was deployed last
    outside: Outside
    plan: tuple[str, ...] | None = None  # what Terraform would change
    unasked: tuple[str, ...] = ()  # parts (see PARTS) that neither this look asked for nor the one before

    @property
    def names(self) -> dict[str, str]:
        """Machine id -> name, of those that answered. Where several say that an id is theirs, it is that of the one at
        whose address fleet has it."""
        names: dict[str, str] = {}
        for name, machine in self.machines.items():
            listed = self.fleet.machines.get(machine.machine_id) if self.fleet else None
            here = listed is not None and listed.address == self.intended.machines.get(name)
            if machine.machine_id and (here or machine.machine_id not in names):
                names[machine.machine_id] = name
        return names

    def running(self, service: str) -> dict[str, tuple[str, str]]:
        """HOST:PORT -> machine and container, of each instance that runs: `blog` of blog.service, `blog-2` of
        blog@2.service."""
        return {
            address: (name, container)
            for name, machine in self.machines.items()
            for container, here in (machine.containers or {}).items()
            if re.fullmatch(rf"{re.escape(service)}(-\d+)?", container) and here.state == "running"
            for address in here.ports.get(APP_PORT, ())
        }

    @property
    def unanswered(self) -> list[str]:
        """The parts that were asked for, and never answered."""
        return [part for part in self._absent if part not in self.unasked]

    @property
    def _absent(self) -> list[str]:
        return [part for part in PARTS if (self.plan if part == "plan" else getattr(self.outside, part)) is None]

    @property
    def unseen(self) -> list[str]:
        """What nobody could tell, and whether somebody asked; where there is no name server there are no names."""
        why = dict.fromkeys(PARTS, "not asked")
        if self.outside.kernel_refused:
            why["kernel"] += f": {self.outside.kernel_refused}"
        why |= dict.fromkeys(self.unanswered, "asked, no answer")
        return [f"{PARTS[part]} ({why[part]})" for part in self._absent if part != "names" or part in self.unanswered]

    @property
    def answering(self) -> dict[str, Machine]:
        """The machines that are not silent."""
        return {name: machine for name, machine in self.machines.items() if not machine.silent}


class _Head(msgspec.Struct):
    """What says of which schema a document is."""

    schema: str = "unknown"


def encode(snapshot: Snapshot) -> bytes:
    return msgspec.json.encode(snapshot)


def decode(document: bytes) -> Snapshot:
    """Raises ValueError for what is no snapshot of this schema."""
    head = msgspec.json.decode(document, type=_Head)
    if head.schema != SCHEMA:
        raise ValueError(f"a snapshot of schema {head.schema}, not {SCHEMA}")
    return msgspec.json.decode(document, type=Snapshot)


def schema() -> dict[str, object]:
    """The JSON Schema of a snapshot."""
    return msgspec.json.schema(Snapshot)


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
