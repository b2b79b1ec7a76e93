"""Reading what a machine printed: a recorded answer, and all that can be wrong with one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.snapshot import reading
from harness.snapshot.data import Container, EtcdHere, Image, Line, Machine, Release, Room
from tests.transcripts.snapshots import COLLECTED, COLLECTED_AT, green

# Part -> what is read of it
FIELDS = {
    "identity": ("machine_id", "boot", "host_key", "worked"),
    "system": ("state", "failed"),
    "units": ("units",),
    "texts": ("units",),
    "containers": ("containers",),
    "images": ("images",),
    "apps": ("apps",),
    "ambassadors": ("ambassadors",),
    "routes": ("routes",),
    "etcd": ("etcd",),
    "metrics": ("etcd",),
    "fleet": ("fleet",),
    "reached": ("reached",),
    "listening": ("listening",),
    "filter": ("filter",),
    "ruleset": ("foreign_rules",),
    "sshd": ("sshd",),
    "room": ("rooms", "load", "processors"),
    "journal": ("journal",),
    "contents": ("contents",),
    "helpers": ("helpers",),
}


def read(printed: str = COLLECTED, sent: float = COLLECTED_AT - 0.1, received: float = COLLECTED_AT + 0.3) -> Machine:
    return reading.machine(printed, sent, received, green().intended.helpers)


def part(name: str, text: str | Callable[[str], str], printed: str = COLLECTED) -> str:
    """The recorded answer, with other text in one of its parts."""
    found = re.search(rf"^@@ {name} \S+\n(.*?)\n@\. {name} 0$", printed, re.MULTILINE | re.DOTALL)
    assert found, name
    new = text if isinstance(text, str) else text(found[1])
    return printed[: found.start(1)] + new + printed[found.end(1) :]


def others(machine: Machine, name: str) -> dict[str, Any]:
    """All that was not read of this part."""
    fields = {field: getattr(machine, field) for field in machine.__struct_fields__}
    return {field: value for field, value in fields.items() if field not in (*FIELDS.get(name, ()), "missing")}


WHOLE = read()


# -- the recorded answer ---------------------------------------------------------------------------------------------


def test_recorded_answer() -> None:
    machine = read()

    assert machine.missing == () and machine.silent == ""
    assert machine.asked == COLLECTED_AT - 0.1 and machine.seconds == 0.4
    assert machine.worked == 0.264  # from its first part to its last
    assert machine.machine_id == "e2fa555f4acf6ae3460db43f25859ba8"
    assert machine.boot == "5f0c4f5e-6d1b-4b0e-9a37-2f8f1f0f6a11 1121649"
    assert machine.host_key.startswith("ssh-ed25519 AAAA")
    assert (machine.state, machine.failed) == ("running", ())
    assert machine.etcd == EtcdHere(
        healthy=True,
        name="coreos-0",
        role="StateLeader",
        leader="e2b403327d932c22",
        members=("coreos-0", "coreos-1", "coreos-2"),
        leader_changes=1,
        peer_failures=0,
    )
    assert machine.routes == {"genkisugimoto.com": "blog", "jp.genkisugimoto.com": "jpblog"}
    assert machine.fleet is not None and len(machine.fleet) == 3
    assert machine.filter == "064df02af692a10d"
    assert machine.sshd["allowusers"] == "core" and machine.sshd["passwordauthentication"] == "no"
    assert machine.rooms["/run"] == Room(size=268435456, free=267939840) and "memory" in machine.rooms
    assert machine.load == 0.97
    assert ("192.0.2.10:2379", "etcd") in machine.listening and ("127.0.0.11:41237", "") in machine.listening
    assert (
        len(machine.journal) == 20
        and machine.journal[1].text == "etcd[104]: simple token is not cryptographically signed"
    )
    assert machine.contents["blog"] == Release(
        version="e09bf639c8fdb465",
        digest="04cc115b68bc0cd0bc4486b0e8bc5214dd2e6299a650225cb2ec3f7b736a3f00",
        files=12,
        stamp="5d2f8c91a7b3e460",
    )


def test_recorded_units() -> None:
    units = read().units
    entry, docker = units["entry.service"], units["docker.service"]

    assert len(units) == 11
    assert entry.runs and entry.main_pid == 695 and entry.since == 1795663913
    assert (entry.restart, entry.restart_sec, entry.start_limit_interval, entry.start_limit_burst) == (
        "always",
        3,
        10,
        5,
    )
    assert entry.text == green().intended.units["entry.service"].text
    assert (docker.text, docker.start_limit_interval, docker.restart_sec) == ("", 60, 0.1)
    assert docker.drop_ins == ("/etc/systemd/system/docker.service.d/platform.conf",)


def test_recorded_containers_apps_and_ambassadors() -> None:
    machine = read()
    assert machine.containers is not None

    assert machine.containers["jpblog"] == Container(
        image="99d736b1337d8b14", state="running", ports={80: ("192.0.2.10:32768",)}
    )
    assert machine.containers["etcd-amb"].ports == {}
    assert machine.apps == {"jpblog": 503}
    assert machine.ambassadors == {"blog": {"192.0.2.12:32768": "UP"}, "jpblog": {"192.0.2.10:32768": "UP"}}


def test_images_are_told_apart_by_what_they_were_pulled_by() -> None:
    """A machine's own image has no digest, and what nothing leads to has no tag."""
    machine = read()
    assert machine.images is not None
    assert machine.images["99d736b1337d8b14"] == Image(
        ("192.0.2.3:5000/web:1",), ("d699ba0b3cbc2a89bcbde044c168d86e720c708c5de9ce8e45d28f2d1c3847ae",)
    )
    moved = """[{"Id":"sha256:01","RepoTags":["a:5000/web:1"],"RepoDigests":null},
        {"Id":"sha256:01","RepoTags":["a:5000/x:1"],"RepoDigests":[]},
        {"Id":"sha256:02","RepoTags":null,"RepoDigests":["a:5000/web@sha256:03","b/web@sha256:03"]}]"""
    found = read(part("images", moved)).images
    assert found == {"01": Image(("a:5000/web:1", "a:5000/x:1")), "02": Image((), ("03",))}


def test_an_answer_of_nothing_is_all_missing() -> None:
    assert set(read("").missing) == set(FIELDS)
    assert msgspec.structs.replace(read(""), missing=()) == Machine(asked=COLLECTED_AT - 0.1, seconds=0.4)


def test_every_part_that_is_recorded_is_read_or_of_the_whole_cluster() -> None:
    parts = set(reading.Parts(COLLECTED).times)

    assert parts - set(FIELDS) == {"fleet-units", "fleet-state", "registrations", "deployed"}


# -- parts that are cut off, failed or junk --------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIELDS)
def test_a_part_that_is_cut_off_is_missing_and_nothing_else_is_lost(name: str) -> None:
    machine = read(COLLECTED.replace(f"\n@. {name} 0\n", "\n"))

    assert machine.missing == (name,)
    assert others(machine, name) == others(read(), name)


@pytest.mark.parametrize("name", FIELDS)
def test_a_part_that_failed_is_missing_and_nothing_else_is_lost(name: str) -> None:
    machine = read(COLLECTED.replace(f"\n@. {name} 0\n", f"\n@. {name} 28\n"))

    assert machine.missing == (name,)
    assert others(machine, name) == others(read(), name)


@pytest.mark.parametrize("at", range(0, len(COLLECTED), 997))
def test_an_answer_that_ends_early_keeps_what_was_whole(at: int) -> None:
    machine, whole = read(COLLECTED[:at]), read()

    missing = {field for name in machine.missing for field in FIELDS[name]} | {"missing", "worked"}
    for field in set(whole.__struct_fields__) - missing:
        assert getattr(machine, field) == getattr(whole, field), field


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
).map(json.dumps)
WORDS = st.lists(
    st.sampled_from(
        [
            "",
            " ",
            "\n",
            "\n\n",
            "=",
            "Id=x",
            "nan",
            "inf",
            "-1",
            "1e999",
            "load",
            "MemTotal:",
            "/",
            "@nan",
            "@1",
            "2",
            "# x-dynamic-amb",
            "#",
            "[]",
            "{}",
            "[{}]",
            '{"machines":[{"id":7}]}',
            "\u2028",
            "\udce4",
            "9" * 30,
            "[" * 9999,
        ]
    )
    | st.text(max_size=6),
    max_size=25,
).map(" ".join)


@given(junk=st.text(max_size=60) | JSON | WORDS)
def test_junk_never_raises_and_costs_no_other_part(junk: str) -> None:
    for name in FIELDS:
        costs_no_other(name, lambda _: junk.replace("@", ""))


@given(at=st.floats(0, 1), junk=st.sampled_from(["", "null", "7", '"', "x", "\n", "inf", "-", "[[", "\udce4"]))
def test_a_part_that_is_damaged_somewhere_never_raises(at: float, junk: str) -> None:
    def damaged(text: str) -> str:
        where = int(at * len(text))
        return text[:where] + junk + text[where + 3 :]

    for name in FIELDS:
        costs_no_other(name, damaged)


def costs_no_other(name: str, damage: Callable[[str], str]) -> None:
    machine = read(part(name, damage))

    assert set(machine.missing) <= {name}
    assert others(machine, name) == others(WHOLE, name)
    # nothing of another type is in it
    assert msgspec.json.decode(msgspec.json.encode(machine), type=Machine) == machine


@given(st.text(max_size=200))
def test_junk_instead_of_an_answer_never_raises(junk: str) -> None:
    assert read(junk).machine_id == ""


@pytest.mark.parametrize("time", ["1.2.3", "now", ".", "", "1795665509.%3N"])
def test_a_part_whose_time_is_junk_is_missing(time: str) -> None:
    printed = re.sub(r"@@ filter \S+", f"@@ filter {time}", COLLECTED)

    assert read(printed).missing == ("filter",)


# -- each part -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("100ms", 0.1),
        ("3s", 3.0),
        ("1min 30s", 90.0),
        ("1h 1min 1s 1ms 1us", 3661.001001),
        ("1d", 86400.0),
        ("1w 2d", 777600.0),
        ("1month", 2629800.0),
        ("1y", 31557600.0),
        ("2.5s", 2.5),
        ("infinity", None),
        ("", None),
        ("3 s", None),
        ("3fortnights", None),
    ],
)
def test_spans_of_time(text: str, seconds: float | None) -> None:
    found = reading.seconds(text)

    assert found == (None if seconds is None else pytest.approx(seconds, abs=1e-9))


@pytest.mark.parametrize(
    ("sent", "received", "ahead"),
    [
        (-0.1, 0.3, 0.0),
        (0.0, 5.0, 0.0),
        (-9.0, -0.04, 0.0),  # less than clocks and rounding explain
        (0.04, 9.0, 0.0),
        (-10.0, -7.0, 7.0),
        (7.0, 10.0, -7.0),
        (-4000.0, -3600.0, 3600.0),
    ],
)
def test_a_clock_is_ahead_or_behind_by_what_the_exchange_does_not_explain(
    sent: float, received: float, ahead: float
) -> None:
    assert read(sent=COLLECTED_AT + sent, received=COLLECTED_AT + received).clock_ahead == pytest.approx(
        ahead, abs=1e-3
    )


def test_a_machine_that_does_not_say_its_time_is_not_ahead() -> None:
    assert read(COLLECTED.replace("@. identity 0", ""), 0.0, 1.0).clock_ahead == 0.0


def container(name: str, **more: Any) -> dict[str, Any]:
    return {
        "Id": f"{name}1",
        "Names": [f"/{name}"],
        "ImageID": "sha256:0123456789abcdef0",
        "State": "exited",
        "Ports": None,
    } | more


def test_containers_that_ended_tell_how() -> None:
    ended = {"ExitCode": 137, "OOMKilled": True, "FinishedAt": "2026-11-26T03:00:00Z"}
    listed = json.dumps([container("blog"), container("entry", State="running")])

    machine = read(part("containers", f"{listed}\n{json.dumps({'Id': 'blog1', 'State': ended})}"))

    assert machine.containers == {
        "blog": Container(
            image="0123456789abcdef",
            state="exited",
            exit_status=137,
            out_of_memory=True,
            finished="2026-11-26T03:00:00Z",
        ),
        "entry": Container(image="0123456789abcdef", state="running"),
    }


def test_a_container_that_went_before_it_was_asked_how_it_ended() -> None:
    machine = read(part("containers", json.dumps([container("blog")]) + "\n\n"))

    assert machine.containers == {"blog": Container(image="0123456789abcdef", state="exited")}


def test_ports_are_those_that_are_published() -> None:
    ports = [
        {"IP": "192.0.2.10", "PrivatePort": 80, "PublicPort": 32769, "Type": "tcp"},
        {"IP": "127.0.0.1", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ]
    machine = read(part("containers", json.dumps([container("blog", Ports=ports)])))

    assert machine.containers and machine.containers["blog"].ports == {80: ("127.0.0.1:8080", "192.0.2.10:32769")}


def test_docker_that_has_no_container_is_not_docker_that_does_not_run() -> None:
    assert read(part("containers", "[]")).containers == {}
    assert read(COLLECTED.replace("@. containers 0", "@. containers 3")).containers is None


def server(number: int, address: str, operation: int, administration: int, port: int) -> str:
    fields = f"3 instances {number} instance{number} {address} {operation} {administration}"
    return f"{fields} 1 1 1591 15 3 2 6 0 0 0 - {port} - 0 0 - - 0"


def test_servers_that_are_in_maintenance_are_left_out() -> None:
    lines = [
        "# blog-dynamic-amb",
        "1",
        "# be_id be_name srv_id",
        server(1, "192.0.2.10", 2, 4, 32768),
        server(2, "192.0.2.11", 0, 4, 32769),
        server(3, "192.0.2.12", 2, 5, 32770),
        server(4, "127.0.0.1", 0, 1, 1),
        "",
        "# jpblog-dynamic-amb",
        "1",
    ]
    assert read(part("ambassadors", "\n".join(lines))).ambassadors == {
        "blog": {"192.0.2.10:32768": "UP", "192.0.2.11:32769": "DOWN"},
        "jpblog": {},
    }


def test_an_etcd_that_answers_in_part_is_none() -> None:
    assert read(part("etcd", '{"health":"true"}\n\n')).etcd is None
    unhealthy = read(part("etcd", '{"health":"false"}\n\n{"members":[{"name":"coreos-0"}]}')).etcd
    assert unhealthy == EtcdHere(False, "", "", "", ("coreos-0",), leader_changes=1, peer_failures=0)


def test_counters_of_etcd_are_added_up_over_its_peers() -> None:
    counters = [
        "etcd_server_has_leader 1",
        "etcd_server_leader_changes_seen_total 3",
        'etcd_network_peer_sent_failures_total{To="62fe6140db42d836"} 1.2e+01',
        'etcd_network_peer_sent_failures_total{To="79053892a9f79c92"} 5',
    ]
    etcd = read(part("metrics", "\n".join(counters))).etcd
    assert etcd is not None and (etcd.leader_changes, etcd.peer_failures) == (3, 17)

    without = read(COLLECTED.replace("@. metrics 0", "@. metrics 1"))
    assert without.missing == ("metrics",)
    assert without.etcd is not None and (without.etcd.leader_changes, without.etcd.peer_failures) == (None, None)


def test_a_message_of_several_lines_is_one() -> None:
    lines = "1795663900.5 python[7]: Traceback:\n                       File x\n1795663901.5 sshd[1]: a\u2028b\x85c"

    assert read(part("journal", lines)).journal == (
        Line(time=1795663900.5, text="python[7]: Traceback:\nFile x"),
        Line(time=1795663901.5, text="sshd[1]: a\u2028b\x85c"),
    )


def test_contents_without_a_version_are_contents() -> None:
    machine = read(part("contents", "blog  11 ab 0123\njpblog caa5f913803dac53 12 cd 4567"))

    assert machine.contents == {
        "blog": Release(version="", digest="0123", files=11, stamp="ab"),
        "jpblog": Release(version="caa5f913803dac53", digest="4567", files=12, stamp="cd"),
    }


def test_helpers_are_told_where_they_are_not_as_they_are_intended() -> None:
    def damaged(text: str) -> str:
        return "\n".join(
            re.sub("^[0-9a-f]+", "0" * 64, line) if "blog/README" in line else line
            for line in text.splitlines()
            if "publish" not in line
        )

    wrong = read(part("helpers", damaged)).helpers
    assert wrong["name/publish.sh"] == "" and wrong["blog/README.txt"] == "0" * 64
    assert read().helpers == green().machines["coreos-0"].helpers == {}


def test_units_that_systemd_does_not_know() -> None:
    block = (
        "MainPID=0\nResult=success\nNRestarts=0\nId=blog.service\nLoadState=not-found\nActiveState=inactive\n"
        "SubState=dead\nFragmentPath=\nDropInPaths=\nStateChangeTimestamp=\nNeedDaemonReload=no\n"
        "StartLimitIntervalUSec=10s\nStartLimitBurst=5\n"
    )
    (unit,) = read(part("units", block)).units.values()

    assert (unit.load, unit.since, unit.restart, unit.restart_sec) == ("not-found", None, "", None)
