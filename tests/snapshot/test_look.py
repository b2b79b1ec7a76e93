"""Taking snapshots: of machines that answer as one did when it was recorded, and sites that are made up."""

from __future__ import annotations

import hashlib
import http.server
import json
import shlex
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paramiko
import pytest

from harness.drivers.cluster import Cluster, Connections
from harness.drivers.site import BrokenLink, Page
from harness.drivers.terraform import Outputs
from harness.errors import CommandFailed, EnvironmentFailed, Misconfigured, PlatformWrong
from harness.record.log import Recorder
from harness.seams.http import SiteUnreachable
from harness.seams.ssh import MachineUnreachable
from harness.snapshot import look as module
from harness.snapshot.data import Answer, Registration, Release, Snapshot, Walk, decode, encode
from harness.snapshot.look import Looker
from tests.fakes import FakeRunner
from tests.transcripts.machines import NAMES, RecordedMachines
from tests.transcripts.snapshots import COLLECTED, COLLECTED_AT, change, green, silent

WHOLE_BEGINS = COLLECTED.index("@@ fleet-units")
BLOG, JPBLOG = green().intended.sites.values()
ADDRESSES = green().intended.machines
VERSION = "e09bf639c8fdb465"
FILES = {"index.html": b"<p>home", "version.txt": VERSION.encode()}
NOT_FOUND = '{"errorCode":100,"message":"Key not found","cause":"/services","index":7}'
NO_LEADER = '{"errorCode":300,"message":"Raft Internal Error","cause":"no leader","index":7}'
OUTPUTS = Outputs(
    "192.0.2.10", dict(ADDRESSES), "core", "", dict(green().intended.sites), "192.0.2.4", tuple(ADDRESSES)
)


def part(name: str, text: str) -> str:
    """The recorded answer with other text in one part."""
    begin = COLLECTED.index("\n", COLLECTED.index(f"@@ {name} ")) + 1
    end = COLLECTED.index(f"\n@. {name} 0")
    return COLLECTED[:begin] + text + COLLECTED[end:]


def page(path: str, body: bytes, status: int = 200, kind: str = "text/plain", domain: str = BLOG) -> Page:
    return Page(f"http://{domain}{path}", status, kind, body)


class FakeSite:
    """A site that serves these files, and walks to all of them; or raises."""

    def __init__(self, name: str, domain: str, files: dict[str, bytes], raises: PlatformWrong | None = None) -> None:
        self.name, self.domain, self.files, self.raises = name, domain, files, raises
        self.broken: list[BrokenLink] = []
        self.walked: list[int | None] = []

    def fetch(self, path: str = "/") -> Page:
        if self.raises:
            raise self.raises
        body = self.files.get(path.removeprefix("/"))
        kind = "text/html" if path.endswith(("/", ".html")) else "text/plain"
        return page(path, body or b"", 404 if body is None else 200, kind, self.domain)

    def walk(self, files: int | None = None) -> tuple[list[Page], list[BrokenLink]]:
        self.walked.append(files)
        return [self.fetch(f"/{path}") for path in self.files if path != "version.txt"], self.broken


class FakeCluster(Cluster):
    """The recorded machines, as they answer COLLECT; the sites, and what is open, as a test says."""

    def __init__(self, recorder: Recorder, process: FakeRunner) -> None:
        super().__init__(lambda: OUTPUTS, Connections(recorder), process)
        self.answering = RecordedMachines()
        for name in NAMES:
            self.answers(COLLECTED, name)
        self.pages = {
            "blog": FakeSite("blog", BLOG, {**FILES}),
            "jpblog": FakeSite("jpblog", JPBLOG, {**FILES, "index.html": b"<p>another home"}),
        }
        for name, site in self.pages.items():
            listed = (f"{hashlib.sha256(body).hexdigest()}  ./{path}\n" for path, body in site.files.items())
            self.answering.on(f"/home/core/{name}/current", "".join(listed))
        self.asked_at: list[tuple[str, str]] = []
        self.scanned = 0

    def answers(self, printed: str | BaseException, *names: str) -> None:
        """What COLLECT prints on these machines; what is for the whole cluster where that is asked for only."""
        for name in names:
            self.answering.on("sudo sh -c", printed if not isinstance(printed, str) else self._cut(printed), name)

    @staticmethod
    def _cut(printed: str) -> Callable[[str], str]:
        begins = printed.find("@@ fleet-units")
        return lambda command: printed if shlex.split(command)[-1] == "whole" else printed[:begins]

    @property
    def machines(self) -> Any:
        return self.answering

    @property
    def sites(self) -> Any:
        return self.pages

    def site_at(self, name: str, address: str, timeouts: Any = None) -> Any:
        self.asked_at.append((name, address))
        return self.pages[name]

    def page_of(self, domain: str, timeouts: Any = None) -> Page:
        return page("/", b"nobody", 404, "text/html", domain)

    def open_ports(self, ports: Iterable[int]) -> dict[str, list[int]]:
        self.scanned += 1
        return {name: [port for port in ports if port in (22, 80)] for name in ADDRESSES}


@pytest.fixture
def cluster(recorder: Recorder, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    monkeypatch.setattr(module.time, "time", lambda: COLLECTED_AT)
    return FakeCluster(recorder, runner.on("dig", "192.0.2.12\n"))


def looker(cluster: FakeCluster, **more: Any) -> Looker:
    return Looker(cluster, green().intended, more.pop("backing", {}), **more)


def look(cluster: FakeCluster, **more: Any) -> Snapshot:
    found = looker(cluster).look(7, 1795000000.0, **more)
    assert decode(encode(found)) == found
    return found


def commands(cluster: FakeCluster) -> dict[str, list[str]]:
    """Machine -> the words that COLLECT was given there."""
    asked = ((name, command) for name, command in cluster.answering.asked if "collect" in command)
    words = ((name, shlex.split(command)) for name, command in asked)
    return {name: its[its.index("collect") + 1 :] for name, its in words}


# -- a whole look ----------------------------------------------------------------------------------------------------


def test_a_look_is_all_that_machines_and_sites_show(cluster: FakeCluster) -> None:
    now = look(cluster)

    assert (now.number, now.asked, now.intended) == (7, COLLECTED_AT, green().intended)
    assert list(now.machines) == list(NAMES) and list(now.answering) == list(NAMES)
    assert now.machines["coreos-1"].missing == () and len(now.machines["coreos-1"].units) == 11
    assert now.fleet is not None and green().fleet is not None
    assert now.fleet.asked_of == "coreos-0"
    assert now.fleet.machines == green().fleet.machines
    assert set(now.fleet.units) == set(now.fleet.states) == set(green().intended.units)
    assert now.fleet.units["blog.service"] == green().fleet.units["blog.service"]
    assert now.fleet.states["entry.service"] == green().fleet.states["entry.service"]
    assert {unit.options for unit in now.fleet.units.values()} == {None}
    assert now.services is not None
    assert now.services["blog"] == {
        "coreos-2:blog": Registration('{"host": "192.0.2.12", "port": 32768}', "192.0.2.12:32768", 5)
    }
    assert now.deployed == green().deployed
    assert now.outside.sites["blog"] == dict.fromkeys(NAMES, Answer(200, VERSION, "text/plain"))
    assert now.outside.stranger == Answer(404, "", "text/html")
    assert now.outside.names == dict.fromkeys((BLOG, JPBLOG), "192.0.2.12")
    assert now.outside.ports == dict.fromkeys(NAMES, (22, 80))
    assert now.outside.walks == {"blog": Walk(1, 2), "jpblog": Walk(1, 2)}
    assert now.plan is None


def test_digests_that_are_known_are_handed_over(cluster: FakeCluster) -> None:
    first = look(cluster)
    held = first.machines["coreos-1"].contents
    cluster.answering.asked.clear()
    look(cluster, before=first)

    assert commands(cluster)["coreos-1"][2] == " ".join(f"{site}:{it.stamp}:{it.digest}" for site, it in held.items())


def test_each_machine_is_asked_once_and_the_first_for_the_whole_cluster(cluster: FakeCluster) -> None:
    look(cluster, costly=False)

    asked = commands(cluster)
    assert len(cluster.answering.asked) == len(asked) == 3
    assert [asked[name][-1] for name in NAMES] == ["whole"] * 3
    since, units, sites, members, _ = asked["coreos-2"]
    assert (since, sites, members) == ("1795000000", "blog jpblog", "192.0.2.10 192.0.2.11 192.0.2.12")
    assert {"etcd.service", "fleet.socket", "blog.service", "entry-name.service"} <= set(units.split())


def test_not_all_machines_are_asked_for_the_whole_cluster(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WHOLE_ASKED", 2)
    now = look(cluster)

    assert [commands(cluster)[name][-1] for name in NAMES] == ["whole", "whole", ""]
    assert now.machines["coreos-2"].missing == ()


def test_each_site_is_asked_through_each_machine(cluster: FakeCluster) -> None:
    look(cluster)

    assert sorted(cluster.asked_at) == sorted((site, its) for site in ("blog", "jpblog") for its in ADDRESSES.values())


# -- machines that do not answer -------------------------------------------------------------------------------------


def test_a_machine_that_is_silent_is_there_as_that(cluster: FakeCluster) -> None:
    cluster.answers(MachineUnreachable("machine coreos-2 does not answer over SSH: timed out"), "coreos-2")
    now = look(cluster)

    assert now.machines["coreos-2"].silent == "machine coreos-2 does not answer over SSH: timed out"
    assert now.machines["coreos-2"].units == {} and now.machines["coreos-2"].missing == ()
    assert list(now.answering) == ["coreos-0", "coreos-1"]
    assert now.fleet is not None and now.services is not None


def test_why_a_machine_is_silent_and_which_one_on_the_way(cluster: FakeCluster) -> None:
    refused = MachineUnreachable.of("coreos-0", "the entry point", paramiko.AuthenticationException("no such key"))
    cluster.answers(refused, "coreos-0", "coreos-2")
    now = look(cluster).machines

    assert [(now[name].refused, now[name].through) for name in NAMES] == [("key", ""), ("", ""), ("key", "coreos-0")]
    assert now["coreos-2"].silent == "the entry point coreos-0 does not answer over SSH: no such key"


def test_a_machine_that_was_silent_before_is_waited_for_shortly(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN", 0.05)
    goes_on, asked = threading.Event(), RecordedMachines.run

    def slow(machines: RecordedMachines, name: str, command: str, **more: Any) -> str:
        if name == "coreos-2":
            goes_on.wait(9)
        return asked(machines, name, command, **more)

    monkeypatch.setattr(RecordedMachines, "run", slow)
    before = silent(green(), "coreos-2")
    try:
        assert look(cluster, before=before, costly=False).machines["coreos-2"].silent == "timed out"
    finally:
        goes_on.set()
    assert look(cluster, before=before, costly=False).machines["coreos-2"].silent == ""


def late(monkeypatch: pytest.MonkeyPatch, *names: str) -> tuple[threading.Event, list[str]]:
    """These machines answer when the event is set; the time passes meanwhile. And all that were asked by then."""
    goes_on, run, began = threading.Event(), RecordedMachines.run, module.time.monotonic()
    asked: list[str] = []

    def slow(machines: RecordedMachines, name: str, command: str, **more: Any) -> str:
        asked.append(name)
        if name in names:
            goes_on.wait(9)
        return run(machines, name, command, **more)

    monkeypatch.setattr(RecordedMachines, "run", slow)
    monkeypatch.setattr(module.time, "time", lambda: COLLECTED_AT + module.time.monotonic() - began)
    return goes_on, asked


def test_machines_that_do_not_answer_in_time_are_silent(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them for all of that time, for the next look to wait for none of them."""
    goes_on, _ = late(monkeypatch, "coreos-1", "coreos-2")
    try:
        now = look(cluster, costly=False, within=0.5)  # the third one needs some of it on a busy machine
    finally:
        goes_on.set()

    assert list(now.answering) == ["coreos-0"]
    for name in ("coreos-1", "coreos-2"):
        assert now.machines[name].silent == f"machine {name} did not answer in time"
        assert 0.5 <= now.machines[name].seconds < 9
    assert now.fleet is not None


def test_machines_are_asked_some_at_a_time(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    run, at_once, most = RecordedMachines.run, [0], []

    def counted(machines: RecordedMachines, name: str, command: str, **more: Any) -> str:
        at_once[0] += 1
        most.append(at_once[0])
        threading.Event().wait(0.02)
        at_once[0] -= 1
        return run(machines, name, command, **more)

    monkeypatch.setattr(RecordedMachines, "run", counted)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(module, "AT_ONCE", 1)

    assert list(look(cluster, costly=False).answering) == list(NAMES)
    assert most == [1, 1, 1]


def test_who_does_not_answer_does_not_hold_the_next_ones_up(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, _ = late(monkeypatch, "coreos-0")
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(module, "AT_ONCE", 1)
    monkeypatch.setattr(module, "NEXT_AFTER", 0.05)
    try:
        now = look(cluster, costly=False, within=0.5)
    finally:
        goes_on.set()

    assert list(now.answering) == ["coreos-1", "coreos-2"]


def test_patience_is_for_looks_too(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATIENCE", "3")
    goes_on, _ = late(monkeypatch, "coreos-2")
    try:
        now = look(cluster, costly=False, within=0.05)
    finally:
        goes_on.set()

    assert now.machines["coreos-2"].seconds >= 0.15


def test_machine_that_is_still_asked_is_not_asked_a_second_time(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (goes_on, asked), looks = late(monkeypatch, "coreos-2"), looker(cluster)
    try:
        first = looks.look(1, 0.0, costly=False, within=0.5)
        looks.look(2, 0.0, first, costly=False, within=0.5)
        assert (asked.count("coreos-2"), asked.count("coreos-0")) == (1, 2)
    finally:
        goes_on.set()
    assert looks.look(3, 0.0, first, costly=False).machines["coreos-2"].silent == ""


def test_nobody_answers(cluster: FakeCluster) -> None:
    cluster.answers(MachineUnreachable("no route to host"), *NAMES)
    now = look(cluster)

    assert {machine.silent for machine in now.machines.values()} == {"no route to host"}
    assert (now.fleet, now.services, now.deployed) == (None, None, None)
    assert now.outside.walks == {"blog": Walk(1), "jpblog": Walk(1)}


def test_what_a_machine_said_before_it_failed_counts(cluster: FakeCluster) -> None:
    said = COLLECTED[: COLLECTED.index("@@ fleet ")]
    cluster.answers(CommandFailed(["sh"], 137, said, "Killed"), "coreos-1")
    now = look(cluster)

    assert now.machines["coreos-1"].silent == "" and now.machines["coreos-1"].etcd is not None
    assert "fleet" in now.machines["coreos-1"].missing and "etcd" not in now.machines["coreos-1"].missing


def test_a_machine_that_fails_and_says_nothing_is_silent(cluster: FakeCluster) -> None:
    cluster.answers(CommandFailed(["sudo sh"], 1, "", "sudo: a password is required"), "coreos-1")

    assert "sudo: a password is required" in look(cluster).machines["coreos-1"].silent


@pytest.mark.parametrize("printed", ["", "\n", "junk", "@@ identity 1.5\n", COLLECTED[:500]])
def test_a_machine_that_says_little_is_not_silent(cluster: FakeCluster, printed: str) -> None:
    cluster.answers(printed, *NAMES)
    now = look(cluster)

    assert all(machine.missing for machine in now.answering.values()) and len(now.answering) == 3
    assert (now.fleet, now.services, now.deployed) == (None, None, None)


# -- the cluster as a whole ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fleet", "fleet-units", "fleet-state"])
@pytest.mark.parametrize("text", ["", "junk", "[]", "null", '{"units":[{}]}', "[" * 9999])
def test_fleet_is_taken_from_the_second_machine_when_the_first_does_not_tell(
    cluster: FakeCluster, name: str, text: str
) -> None:
    if text.startswith("{") and name != "fleet-units":
        return
    cluster.answers(part(name, text), "coreos-0")
    now = look(cluster)

    assert now.fleet is not None and now.fleet.asked_of == "coreos-1"
    assert now.services is not None and now.deployed == green().deployed


@pytest.mark.parametrize("text", ["", "junk", "[]", "null", "{}", NO_LEADER, '{"node":{"nodes":[7]}}', "[" * 9999])
def test_etcd_is_taken_from_the_second_machine_when_the_first_does_not_tell(cluster: FakeCluster, text: str) -> None:
    cluster.answers(part("registrations", text), "coreos-0")
    now = look(cluster)
    assert now.services is not None and list(now.services) == ["blog", "jpblog"]

    cluster.answers(part("registrations", text), *NAMES)
    now = look(cluster)
    assert now.services is None and now.deployed == green().deployed


def test_an_etcd_that_is_cut_off_is_asked_last_for_it_remembers_what_was(cluster: FakeCluster) -> None:
    cut_off = COLLECTED.replace('"health":"true"', '"health":"false"')
    assert cut_off != COLLECTED

    cluster.answers(cut_off, "coreos-0", "coreos-1")
    now = look(cluster)
    assert now.fleet is not None and now.fleet.asked_of == "coreos-2"

    cluster.answers(cut_off, "coreos-2")
    now = look(cluster)
    assert now.fleet is not None and now.fleet.asked_of == "coreos-0"


def test_a_silent_way_in_leaves_the_second_to_tell(cluster: FakeCluster) -> None:
    cluster.answers(MachineUnreachable("gone"), "coreos-0")
    now = look(cluster)

    assert now.fleet is not None and now.fleet.asked_of == "coreos-1"


def test_a_key_that_is_not_there_is_an_empty_directory(cluster: FakeCluster) -> None:
    for name in NAMES:
        cluster.answers(part("registrations", NOT_FOUND), name)
    assert look(cluster).services == {}

    for name in NAMES:
        cluster.answers(part("deployed", NOT_FOUND), name)
    assert look(cluster).deployed == {}


def test_a_directory_without_nodes_is_empty(cluster: FakeCluster) -> None:
    cluster.answers(part("registrations", '{"action":"get","node":{"key":"/services","dir":true}}'), "coreos-0")

    assert look(cluster).services == {}


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ('{"host": "192.0.2.10", "port": 1}', "192.0.2.10:1"),
        ('{"host": "192.0.2.10", "port": "1"}', ""),
        ('{"host": "192.0.2.10", "port": true}', ""),
        ('{"host": 7, "port": 1}', ""),
        ('{"host": "192.0.2.10"}', ""),
        ("192.0.2.10:1", ""),
        ("[]", ""),
        ("", ""),
        ("[" * 9999, ""),
    ],
)
def test_a_registration_is_an_address_or_none(cluster: FakeCluster, value: str, address: str) -> None:
    nodes = [{"key": "/services/blog", "dir": True, "nodes": [{"key": "/services/blog/x", "value": value}]}]
    cluster.answers(part("registrations", json.dumps({"node": {"key": "/services", "nodes": nodes}})), "coreos-0")

    assert look(cluster).services == {"blog": {"x": Registration(value[:200], address)}}


def test_options_of_a_unit_are_kept_where_they_are_not_those_that_are_intended(cluster: FakeCluster) -> None:
    document = json.loads(COLLECTED[WHOLE_BEGINS:].split("\n")[1])
    document["units"] = [unit for unit in document["units"] if unit["name"] == "blog.service"]
    document["units"][0]["options"] = [{"section": "Service", "name": "ExecStart", "value": "/bin/true"}]
    document["units"].append({**document["units"][0], "name": "foreign.service"})
    cluster.answers(part("fleet-units", json.dumps(document)), "coreos-0")
    now = look(cluster)

    assert now.fleet is not None
    assert {name: unit.options for name, unit in now.fleet.units.items()} == dict.fromkeys(
        ("blog.service", "foreign.service"), (("Service", "ExecStart", "/bin/true"),)
    )


def test_what_was_deployed_without_a_digest(cluster: FakeCluster) -> None:
    nodes = [{"key": "/platform/deployed/blog", "value": "0123"}]
    cluster.answers(part("deployed", json.dumps({"node": {"nodes": nodes}})), "coreos-0")

    assert look(cluster).deployed == {"blog": Release("0123", "")}


# -- what is costly --------------------------------------------------------------------------------------------------


def test_what_is_costly_is_looked_at_where_that_is_asked_for(cluster: FakeCluster) -> None:
    planned: list[int] = []

    def plan() -> list[str]:
        planned.append(1)
        return ["machine[1] is created"]

    takes = looker(cluster, plan=plan)
    first = takes.look(0, 0.0)
    assert (first.plan, len(planned), cluster.scanned) == (("machine[1] is created",), 1, 1)
    assert cluster.pages["blog"].walked == [2]

    cluster.pages["blog"].broken = [BrokenLink("a", "b", 404)]
    assert first.unasked == ("kernel",)
    second = takes.look(1, 0.0, first, costly=False)
    assert second.unasked == ("kernel",)
    assert (len(planned), cluster.scanned, cluster.pages["blog"].walked) == (1, 1, [2])
    assert (second.plan, second.outside.ports, second.outside.walks) == (
        first.plan, first.outside.ports, first.outside.walks
    )  # fmt: skip

    third = takes.look(2, 0.0, second)
    assert third.outside.walks and third.outside.walks["blog"].broken == ("a: b: 404",)
    assert (len(planned), cluster.scanned) == (2, 2)


def test_what_is_costly_is_not_known_without_a_look_before(cluster: FakeCluster) -> None:
    now = look(cluster, costly=False)

    assert (now.plan, now.outside.ports, now.outside.walks) == (None, None, None)
    assert now.unasked == ("plan", "walks", "ports", "kernel") and now.unanswered == []
    assert now.outside.sites["blog"]["coreos-0"].status == 200


def test_what_does_not_end_in_time_was_asked_and_not_answered(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()

    def plan() -> list[str]:
        goes_on.wait(9)
        return ["machine[1] is created"]

    def walk(files: int | None = None) -> tuple[list[Page], list[BrokenLink]]:
        goes_on.wait(9)
        return [], []

    monkeypatch.setattr(cluster.pages["blog"], "walk", walk)
    try:
        takes = looker(cluster, plan=plan)
        now = takes.look(0, 0.0, within=0.5)
        later = takes.look(1, 0.0, now, costly=False, within=0.5)
    finally:
        goes_on.set()

    assert (now.plan, now.outside.walks) == (None, None)
    # what the next look takes over stays a question without an answer
    assert now.unasked == later.unasked == ("kernel",) and now.unanswered == later.unanswered == ["plan", "walks"]
    assert now.outside.ports is not None and list(now.answering) == list(NAMES)


def test_a_plan_that_cannot_be_made_is_told(cluster: FakeCluster) -> None:
    def plan() -> list[str]:
        raise EnvironmentFailed("no Docker")

    assert looker(cluster, plan=plan).look(0, 0.0).plan == ("no plan: no Docker",)
    assert looker(cluster, plan=list).look(0, 0.0).plan == ()


def test_alarms_of_the_kernel_are_looked_at_where_somebody_sees_them(cluster: FakeCluster) -> None:
    def fails(since: float) -> list[str]:
        raise EnvironmentFailed("dmesg: not permitted")

    def may_not(since: float) -> list[str]:
        raise Misconfigured("`sudo this` gives the right")

    assert looker(cluster, kernel=lambda since: [f"oom-kill since {since:.0f}"]).look(0, 5.0).outside.kernel == (
        "oom-kill since 5",
    )
    assert looker(cluster, kernel=lambda since: ()).look(0, 5.0, costly=False).outside.kernel == ()
    failed, refused, unasked = (looker(cluster, kernel=it).look(0, 5.0) for it in (fails, may_not, None))
    assert [now.outside.kernel for now in (failed, refused, unasked)] == [None] * 3
    assert [now.unanswered for now in (failed, refused, unasked)] == [["kernel"], [], []]
    assert [now.unseen[1:] for now in (refused, unasked)] == [
        ["the kernel's log (not asked: `sudo this` gives the right)"], ["the kernel's log (not asked)"]
    ]  # fmt: skip


# -- from outside ----------------------------------------------------------------------------------------------------


def test_a_site_that_does_not_answer(cluster: FakeCluster) -> None:
    cluster.pages["blog"].raises = SiteUnreachable("http://x cannot be reached", seen="connection refused")
    now = look(cluster)

    assert now.outside.sites["blog"]["coreos-1"] == Answer(failed="connection refused")
    assert now.outside.walks and now.outside.walks["blog"] == Walk(0, failed="connection refused")
    assert cluster.pages["blog"].walked == []
    assert now.outside.walks["jpblog"] == Walk(1, 2)


def test_files_that_are_served_otherwise_or_not_at_all(cluster: FakeCluster) -> None:
    cluster.pages["blog"].files = {"index.html": b"<p>other"}
    now = look(cluster)

    assert now.outside.walks and now.outside.walks["blog"] == Walk(1, 2, differing=("index.html", "version.txt"))
    assert now.outside.sites["blog"]["coreos-0"] == Answer(404, "", "text/plain")


def test_pages_that_are_another_sites(cluster: FakeCluster) -> None:
    cluster.pages["jpblog"].files = {**FILES}
    now = look(cluster)

    assert now.outside.walks and now.outside.walks["jpblog"].foreign == (f"http://{JPBLOG}/index.html",)
    assert now.outside.walks["jpblog"].differing == ("index.html",)
    assert now.outside.walks["blog"].foreign == (f"http://{BLOG}/index.html",)


def test_a_site_is_compared_with_what_most_machines_hold(cluster: FakeCluster) -> None:
    """What one machine has by itself, no other one can serve."""
    recorded = COLLECTED[COLLECTED.index("\nblog e09b") :].split()[4]
    cluster.answers(COLLECTED.replace(recorded, "0123"), "coreos-0")
    cluster.answering.on("/home/core/blog/current", f"{'0' * 64}  ./its-own.html\n", "coreos-0")
    now = look(cluster)

    assert now.machines["coreos-0"].contents["blog"].digest == "0123"
    assert now.outside.walks and now.outside.walks["blog"] == Walk(1, 2)


def test_a_site_that_no_machine_has_is_walked_without_files(cluster: FakeCluster) -> None:
    cluster.answers(part("contents", ""), *NAMES)
    now = look(cluster)

    assert now.outside.walks and now.outside.walks["blog"] == Walk(1)
    assert cluster.pages["blog"].walked == [None]


@pytest.mark.parametrize(
    ("said", "address"),
    [("192.0.2.11\n", "192.0.2.11"), ("", ""), ("192.0.2.10\n192.0.2.11\n", "192.0.2.10, 192.0.2.11")],
)
def test_names(cluster: FakeCluster, runner: FakeRunner, said: str, address: str) -> None:
    runner.on("dig", said)

    now = look(cluster)
    assert now.outside.names == dict.fromkeys((BLOG, JPBLOG), address)
    assert now.outside.backing == {"name server": ""}


def test_a_name_server_that_does_not_answer(cluster: FakeCluster, runner: FakeRunner) -> None:
    runner.on("dig", raises=CommandFailed(["dig"], 9, ";; no servers could be reached\n", ""))
    now = look(cluster)

    assert now.outside.names == dict.fromkeys((BLOG, JPBLOG), "")
    assert now.outside.backing == {"name server": "status 9: ;; no servers could be reached"}


def test_a_cluster_without_a_name_server_has_no_names(cluster: FakeCluster, runner: FakeRunner) -> None:
    now = Looker(cluster, change(green().intended, "name_server", ""), {}).look(0, 0.0)

    assert (now.outside.names, now.outside.backing, runner.calls) == (None, {}, [])
    assert "names" in now.unasked and now.unanswered == []


# -- backing services ------------------------------------------------------------------------------------------------


@contextmanager
def serving(status: int, manifests: dict[str, str | int] | None = None) -> Iterator[int]:
    """A service on loopback; its port. Of a registry the digest of each manifest (path), or the status for it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            found = (manifests or {}).get(self.path, 404)
            self.send_response(status if self.path == "/v2/" else found if isinstance(found, int) else 200)
            if isinstance(found, str):
                assert "manifest.list.v2" in self.headers["Accept"]
                self.send_header("Docker-Content-Digest", found)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    class Server(http.server.ThreadingHTTPServer):
        def server_bind(self) -> None:  # without the look-up of a name that HTTPServer makes
            socketserver.TCPServer.server_bind(self)

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def backing(cluster: FakeCluster, url: str) -> str:
    return looker(cluster, backing={"it": url}).look(0, 0.0, costly=False).outside.backing["it"]


@pytest.mark.parametrize(("status", "reason"), [(200, ""), (404, ""), (500, "status 500"), (503, "status 503")])
def test_a_backing_service_that_answers(cluster: FakeCluster, status: int, reason: str) -> None:
    with serving(status) as port:
        assert backing(cluster, f"http://127.0.0.1:{port}/v2/") == reason


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://localhost:9/token", "https://127.0.0.1:9/"])
def test_a_backing_service_where_nobody_listens(cluster: FakeCluster, url: str) -> None:
    assert "refused" in backing(cluster, url)


def test_a_backing_service_that_nobody_knows(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "not known" in backing(cluster, "http://discovery.example/token")


@pytest.mark.parametrize("url", ["http://127.0.0.1:x/", "ftp://127.0.0.1/", "http://", "http://[::1/", "//"])
def test_a_backing_service_whose_url_is_wrong_does_not_end_the_look(cluster: FakeCluster, url: str) -> None:
    assert backing(cluster, url)


@pytest.mark.parametrize(("said", "reason"), [("200", ""), ("404", ""), ("503", "status 503")])
def test_a_backing_service_on_a_machine_is_asked_there(cluster: FakeCluster, said: str, reason: str) -> None:
    cluster.answering.on("curl", said)

    assert backing(cluster, f"http://{next(iter(OUTPUTS.machines.values()))}:5000/v2/") == reason


@pytest.mark.parametrize(
    ("url", "on"),
    [
        (f"http://{OUTPUTS.machines['coreos-1']}:5000/v2/", {"it": "coreos-1"}),
        ("http://192.0.2.250:5000/v2/", {}),
        ("http://[wrong", {}),
    ],
)
def test_on_which_machine_a_backing_service_runs(cluster: FakeCluster, url: str, on: dict[str, str]) -> None:
    cluster.answering.on("curl", "200")

    assert looker(cluster, backing={"it": url}).look(0, 0.0, costly=False).outside.backing_on == on


def test_a_backing_service_on_a_machine_that_is_silent(cluster: FakeCluster) -> None:
    cluster.answering.on("curl", CommandFailed(["curl"], 7, "000", "curl: (7) Connection refused"))

    assert "refused" in backing(cluster, f"http://{next(iter(OUTPUTS.machines.values()))}:5000/v2/")


@pytest.mark.parametrize(
    ("url", "port"),
    [("http://192.0.2.4/", 80), ("https://192.0.2.4/x", 443), ("http://192.0.2.4:5000/v2/", 5000)],
)
def test_where_a_backing_service_is_asked(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, url: str, port: int
) -> None:
    asked = []

    def refused(address: tuple[str, int], *more: object, **options: object) -> None:
        asked.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("urllib3.util.connection.create_connection", refused)
    assert "refused" in backing(cluster, url)
    assert asked == [("192.0.2.4", port)]


WEB, AMBASSADOR = "/v2/web/manifests/1", "/v2/ambassador/manifests/1"


@pytest.mark.parametrize(
    ("status", "manifests", "reason", "images"),
    [
        (200, {WEB: "sha256:01", AMBASSADOR: "sha256:02"}, "", {"ambassador:1": "02", "web:1": "01"}),
        (200, {WEB: "sha256:01"}, "", {"ambassador:1": "", "web:1": "01"}),
        (200, {WEB: "sha256:01", AMBASSADOR: 401}, "status 401, and no digest, for ambassador:1", {"web:1": "01"}),
        (200, {WEB: 503, AMBASSADOR: "sha256:02"}, "status 503", {"ambassador:1": "02"}),
        (503, {}, "status 503", {"ambassador:1": "", "web:1": ""}),
    ],
)
def test_which_images_the_registry_has(
    cluster: FakeCluster, status: int, manifests: dict[str, str | int], reason: str, images: dict[str, str]
) -> None:
    """Those that units name. What it does not tell is no answer of it."""
    with serving(status, manifests) as port:
        looks = looker(cluster, backing={"image registry": f"http://127.0.0.1:{port}/v2/"})
        seen = looks.look(0, 0.0, costly=False).outside

    assert (seen.backing["image registry"], seen.registry) == (reason, f"127.0.0.1:{port}")
    assert reason == "status 503" or seen.images == images


def test_a_registry_on_a_machine_is_asked_there_for_all_images_at_once(cluster: FakeCluster) -> None:
    cluster.answering.on("/v2/", "200 \n200 sha256:02\n404 \n")
    url = f"http://{OUTPUTS.machines['coreos-1']}:5000/v2/"
    seen = looker(cluster, backing={"image registry": url}).look(0, 0.0, costly=False).outside

    assert (seen.backing["image registry"], seen.images) == ("", {"ambassador:1": "02", "web:1": ""})
    (command,) = (command for _, command in cluster.answering.asked if command.startswith("curl"))
    assert [word for word in shlex.split(command) if "://" in word] == [
        url,
        f"{url}ambassador/manifests/1",
        f"{url}web/manifests/1",
    ]
    assert {"-I", "--fail-early"} <= set(shlex.split(command))


def test_a_registry_that_is_silent_says_nothing_of_images(cluster: FakeCluster) -> None:
    seen = looker(cluster, backing={"image registry": "http://127.0.0.1:9/v2/"}).look(0, 0.0, costly=False).outside

    assert "refused" in seen.backing["image registry"] and seen.images == {}


# -- the operator's own user -----------------------------------------------------------------------------------------

ASKED = "@@ operator 1795665509.50\nfleet curl: (7) refused (srw------- 1 root core)\ndocker \n\n@. operator 0\n"


def test_what_serves_the_operators_user_is_asked_in_costly_looks_and_kept(cluster: FakeCluster) -> None:
    """In the same session, and without sudo."""
    cluster.answers(ASKED + COLLECTED, "coreos-1")
    first = look(cluster)
    command = next(command for name, command in cluster.answering.asked if "collect" in command)
    assert shlex.split(command)[:2] == ["sh", "-c"] and "sudo" not in shlex.split(command)[2]
    said = {"fleet": "curl: (7) refused (srw------- 1 root core)", "docker": ""}
    assert first.machines["coreos-1"].operator == said and first.machines["coreos-0"].operator is None

    cluster.answers(COLLECTED, "coreos-1")
    cluster.answering.asked.clear()
    assert look(cluster, before=first, costly=False).machines["coreos-1"].operator == said
    assert all(command.startswith("sudo ") for _, command in cluster.answering.asked if "collect" in command)
    assert look(cluster, before=first).machines["coreos-1"].operator is None


def test_an_answer_to_the_operators_user_that_is_cut_off_is_missing(cluster: FakeCluster) -> None:
    cluster.answers(ASKED.replace("@. operator 0\n", "") + COLLECTED, "coreos-1")

    assert look(cluster).machines["coreos-1"].missing == ("operator",)


def test_a_machine_whose_sudo_asks_for_a_password(cluster: FakeCluster) -> None:
    """What was asked without it is no answer."""
    refused = "sudo: a terminal is required to read the password\nsudo: a password is required\n"
    cluster.answers(CommandFailed(["sudo"], 1, ASKED, refused), "coreos-1")
    seen = look(cluster).machines["coreos-1"]

    assert (seen.silent, seen.refused) == (refused.strip(), "sudo")


def test_the_text_that_machines_run_is_the_files() -> None:
    assert module.COLLECT.count("part ") >= 20 and len(module.COLLECT) < 10_000
    assert Path(module.__file__).with_name("collect.sh").exists()


@pytest.mark.parametrize(("names", "listen"), [((), True), (("coreos-0", "coreos-1"), True), (("coreos-9",), False)])
def test_machines_that_listen(cluster: FakeCluster, names: tuple[str, ...], listen: bool) -> None:
    assert looker(cluster).listens(names) is listen
