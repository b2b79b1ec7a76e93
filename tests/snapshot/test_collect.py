"""collect.sh: whatever its programs do, each part has its begin and its end, and nothing is changed."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.snapshot import look, reading
from harness.snapshot.look import COLLECT, OPERATOR
from tests.places import program
from tests.transcripts.snapshots import COLLECTED

FILE = Path(look.__file__).with_name("collect.sh")
PARTS = re.findall(r"^ *part (\S+)", FILE.read_text(), re.MULTILINE)
WHOLE = PARTS[-4:]
# What it runs that is not in every shell; `timeout` is the one that ends those that hang
PROGRAMS = ("systemctl", "curl", "perl", "ss", "nft", "sshd", "journalctl", "df", "find", "sha256sum", "nproc")
Collect = Callable[..., str]
HANGS = "exec sleep 9"
# curl is told how long it may take
CURL_HANGS = 'case "$*" in *--max-time*) exit 28;; esac; exec sleep 9'


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine's own folders."""
    for folder in ("units", "core/blog/current", "work", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "units/blog-dynamic-amb.service").write_text("[Unit]\n")
    (tmp_path / "core/blog/current/version.txt").write_text("e09bf639c8fdb465\n")
    (tmp_path / "core/helper.sh").write_text("#!/bin/sh\n")
    return tmp_path


@pytest.fixture
def collect(machine: Path) -> Collect:
    """Runs it on that machine, where each of these programs does what a script says; the others are this machine's."""

    def run(whole: str = "whole", sites: str = "blog jpblog", members: str = "127.0.0.1", **scripts: str) -> str:
        # who hangs is ended soon; who does not may take long on a busy machine
        limit = f'shift; exec /usr/bin/timeout {0.2 if HANGS in scripts.values() else 9} "$@"'
        for name, script in {"timeout": limit, "systemctl": "exit 1", "curl": "exit 7", **scripts}.items():
            program(machine, name, f"#!/bin/sh\n{script}\n")
        text = COLLECT.replace("/run/fleet/units", f"{machine}/units").replace("/home/core", f"{machine}/core")
        text = (
            text.replace("/run/systemd/system /etc/systemd/system", f"{machine}/systemd")
            .replace("/run/entry/", f"{machine}/")
            .replace("/usr/sbin/sshd", "sshd")
            .replace("/run/docker.sock", f"{machine}/no.sock")
            .replace("/var/lib/platform/before/", f"{machine}/")
            .replace("/proc/net/", f"{machine}/")
        )
        done = subprocess.run(
            ["/bin/sh", "-c", text, "collect", "0", "etcd.service", sites, members, whole],
            env={"PATH": f"{machine}/bin:/usr/bin:/bin", "HOME": str(machine)},
            cwd=machine / "work",
            capture_output=True,
            timeout=20,
        )
        assert done.returncode == 0
        return done.stdout.decode()

    return run


def begun_and_ended(printed: str) -> tuple[list[str], list[str]]:
    return re.findall(r"^@@ (\S+) [0-9.]+$", printed, re.M), re.findall(r"^@\. (\S+) \d+$", printed, re.M)


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """All that is in a folder, with size, mode and time of each."""
    found = {path.relative_to(folder).as_posix(): path.lstat() for path in sorted(folder.rglob("*"))}
    return {name: (it.st_size, it.st_mode, it.st_mtime_ns) for name, it in found.items() if not name.startswith("bin")}


@pytest.mark.parametrize("name", ["collect.sh", "operator.sh"])
def test_shell_is_clean(name: str) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")

    done = subprocess.run([str(shellcheck), "-s", "sh", str(FILE.with_name(name))], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_is_sent_without_comments_and_means_the_same() -> None:
    assert not re.search(r"^\s*#", COLLECT, re.MULTILINE)
    assert re.findall(r"^ *part (\S+)", COLLECT, re.MULTILINE) == PARTS
    assert subprocess.run(["/bin/sh", "-n", "-c", COLLECT]).returncode == 0


def test_the_recorded_answer_has_its_parts() -> None:
    assert begun_and_ended(COLLECTED) == (PARTS, PARTS)


def test_nothing_is_redirected_into_a_file() -> None:
    code = re.sub(r"'[^']*'", "''", COLLECT)

    assert set(re.findall(r"\d?>+\s*[^ \n)]+", code)) == {"2>/dev/null"}
    assert not re.search(r"\b(rm|mv|cp|tee|touch|mkdir|ln|dd|install|sed -i)\b", code)
    assert not re.search(r"systemctl (start|stop|restart|reload|daemon-reload|enable|reset-failed)", code)
    assert not re.search(r"curl[^|;]*( -X| --request| --data| -d)", code)


@pytest.mark.parametrize(
    ("scripts", "said"),
    [
        ({}, {"fleet": "", "docker": ""}),
        ({"curl": "case $* in *fleet*) echo 'no permission'; exit 7;; esac"}, {"fleet": "no permission", "docker": ""}),
        # what does not run would be started by the question
        ({"systemctl": "case $* in *docker*) exit 3;; *) echo active;; esac"}, {"fleet": ""}),
        ({"systemctl": "echo inactive; exit 3"}, {}),
        ({"systemctl": "exit 124"}, {}),
        ({"fleetctl": None}, {"fleet": "", "docker": "", "fleetctl": "it is in no folder of"}),
    ],
)
def test_what_serves_the_operators_user(machine: Path, scripts: dict[str, str | None], said: dict[str, str]) -> None:
    """It is told apart from what does not run, by who asks without sudo."""
    given: dict[str, str | None] = {"systemctl": "echo active", "curl": "exit 0", "fleetctl": "", "ls": "", **scripts}
    for name, script in given.items():
        if script is not None:
            program(machine, name, f"#!/bin/sh\n{script}\n")
    done = subprocess.run(
        ["/bin/sh", "-c", OPERATOR], env={"PATH": f"{machine}/bin:/usr/bin:/bin"}, capture_output=True, text=True
    )
    found = reading.machine(done.stdout, 0.0, 0.0, {}).operator

    assert found is not None and set(found) == set(said) and done.stderr == ""
    assert all(found[name].endswith(why) if name != "fleetctl" else why in found[name] for name, why in said.items())
    assert all(bool(found[name]) == bool(why) for name, why in said.items())


@pytest.mark.parametrize("whole", ["whole", ""])
def test_parts_are_those_that_are_asked_for(collect: Collect, whole: str) -> None:
    expected = PARTS if whole else PARTS[:-4]

    assert WHOLE == ["fleet-units", "fleet-state", "registrations", "deployed"]
    assert begun_and_ended(collect(whole)) == (expected, expected)


@pytest.mark.parametrize(
    "script",
    [
        "exit 1",
        "exit 127",
        "kill -9 $$",
        "echo junk; exit 1",
        r"printf '\n@. x 0\n@@ y'; exit 3",
        "echo said >&2",
        HANGS,
    ],
    ids=["fails", "is-missing", "is-killed", "says-junk", "says-parts", "says-nothing", "hangs"],
)
def test_whatever_programs_do_each_part_begins_and_ends_and_nothing_is_written(
    collect: Collect, machine: Path, script: str
) -> None:
    before = state(machine)
    scripts = dict.fromkeys(PROGRAMS, script) | ({"curl": CURL_HANGS} if script == HANGS else {})
    if script == HANGS:  # these wait for nobody
        del scripts["perl"], scripts["nproc"], scripts["sha256sum"]

    begun, ended = begun_and_ended(collect(**scripts))

    assert [it for it in begun if it in PARTS] == [it for it in ended if it in PARTS] == PARTS
    assert state(machine) == before


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_is_not_there_costs_no_other_part(collect: Collect, name: str) -> None:
    without = collect(**{name: "exit 127"})
    here = reading.machine(without, 0.0, 0.0, {})

    assert begun_and_ended(without) == (PARTS, PARTS)
    if name not in ("find", "sha256sum"):
        assert here.contents["blog"].version == "e09bf639c8fdb465" and here.contents["blog"].files == 1


def test_an_answer_is_read(collect: Collect) -> None:
    """What programs of this system say, where nothing of the platform runs."""
    parts = reading.Parts(collect())

    assert set(parts.times) == set(PARTS)
    assert "blog-dynamic-amb.service" in parts.texts["texts"]
    assert parts.texts["helpers"].splitlines()[0].endswith("  ./blog/current/version.txt")
    assert parts.texts["contents"].startswith("blog e09bf639c8fdb465 1 ") and "jpblog" not in parts.texts["contents"]
    assert not {"containers", "etcd", "metrics", "fleet"} & set(parts.texts)
    assert parts.texts["ambassadors"] == ""


def test_who_takes_connections_or_refuses_them_is_reached(collect: Collect) -> None:
    """One that is silent is not: of a full queue the kernel drops what comes."""
    with socket.create_server(("127.0.23.80", 2380), backlog=0):
        asked: dict[str, str] = {"members": "127.0.0.1 127.0.23.80", "timeout": 'shift; exec /usr/bin/timeout 9 "$@"'}
        here = reading.machine(collect(curl="echo '{}'", **asked), 0.0, 0.0, {})
        boots = reading.machine(collect(**asked), 0.0, 0.0, {})

    assert here.reached["127.0.0.1"] == 1 and 0 < here.reached["127.0.23.80"] < 1
    assert boots.reached == {}  # its etcd is not up: nobody is tried


def test_contents_that_did_not_change_are_not_read_again(collect: Collect, machine: Path) -> None:
    known = reading.machine(collect(), 0.0, 0.0, {}).contents["blog"]
    word = f"blog:{known.stamp}:{known.digest}"

    assert reading.machine(collect(sites=word), 0.0, 0.0, {}).contents["blog"] == known
    (machine / "core/blog/current/version.txt").write_text("e09bf639c8fdb466\n")  # no byte more, no byte less
    changed = reading.machine(collect(sites=word), 0.0, 0.0, {}).contents["blog"]
    assert changed.digest != known.digest and changed.stamp != known.stamp
    # the stamp is believed
    believed = reading.machine(collect(sites=f"blog:{changed.stamp}:0123"), 0.0, 0.0, {}).contents["blog"]
    assert believed.digest == "0123"


def test_contents_that_take_too_long_are_missing_and_not_wrong(collect: Collect) -> None:
    slow = 'case $* in *sha256sum*) exit 124;; esac; shift; exec /usr/bin/timeout 9 "$@"'

    assert "contents" in reading.machine(collect(timeout=slow), 0.0, 0.0, {}).missing


@pytest.mark.parametrize(
    ("nft", "said"),
    [
        ("exit 0", ""),
        ("printf 'table inet platform {\n}\n'", "digest"),
        ("printf 'table inet other {\n}\n'", ""),
        ("exit 1", None),
        ("exit 124", None),
        ("exit 127", None),
    ],
)
def test_filter_that_cannot_be_asked_for_is_not_one_that_is_not_there(
    collect: Collect, nft: str, said: str | None
) -> None:
    here = reading.machine(collect(nft=nft), 0.0, 0.0, {})

    assert ("filter" in here.missing) == (said is None) and bool(here.filter) == (said == "digest")
    assert ("ruleset" in here.missing) == (said is None)


RAW = "table ip raw {\n\tchain PREROUTING {\n\t\ttcp dport 32768 counter drop\n\t}\n}\n"


def test_rules_of_nobody_are_found_wherever_they_are_kept(collect: Collect, machine: Path) -> None:
    """Also by iptables-legacy, where its tables are there; not what a host had before it was a machine."""
    nft = f"printf '%s' '{RAW}'"
    here = reading.machine(collect(nft=nft), 0.0, 0.0, {})
    assert here.foreign_rules == ("ip raw PREROUTING: tcp dport 32768 drop",)

    (machine / "ip_tables_names").write_text("raw\n")
    legacy = {"iptables-legacy-save": r"printf '*raw\n:PREROUTING DROP [0:0]\n-A PREROUTING -p tcp -j DROP\nCOMMIT\n'"}
    here = reading.machine(collect(nft="exit 0", **legacy), 0.0, 0.0, {})
    assert here.foreign_rules == ("legacy raw PREROUTING: policy drop", "legacy raw PREROUTING: -p tcp -j DROP")

    (machine / "chains").write_text("ip raw PREROUTING accept\nlegacy raw PREROUTING -\n")
    here = reading.machine(collect(nft=nft, **legacy), 0.0, 0.0, {})
    assert here.foreign_rules == () and "ruleset" not in here.missing

    here = reading.machine(collect(nft=nft, **{"iptables-legacy-save": "exit 124"}), 0.0, 0.0, {})
    assert "ruleset" in here.missing


def test_routes_are_those_that_the_entry_point_is_configured_with(collect: Collect, machine: Path) -> None:
    """As the helper file writes them; it needs the names in the environment only."""
    script = FILE.parent.parent.parent / "container/entry/configure.sh"
    names = {"BLOG_DOMAIN": "blog.example", "JPBLOG_DOMAIN": "jp.blog.example", "PATH": "/usr/bin:/bin"}
    subprocess.run(["/bin/sh", str(script), str(machine / "entry.conf")], env=names, check=True)

    here = reading.machine(collect(), 0.0, 0.0, {})
    assert here.routes == {"blog.example": "blog", "jp.blog.example": "jpblog"}


def test_docker_is_not_asked_while_it_does_not_run(collect: Collect, machine: Path) -> None:
    """systemd would start it."""
    collect(systemctl="exit 3", curl=f'echo "$@" >> {machine}/asked')
    assert "docker" not in (machine / "asked").read_text()

    collect(systemctl="exit 0", curl=f'echo "$@" >> {machine}/asked')
    assert "http://docker/containers/json?all=1" in (machine / "asked").read_text()


DOCKER = r"""
case "$*" in
    *containers/json*filters*) echo '[{"Id":"ab1"},{"Id":"cd2"}]';;
    *containers/json*) printf '[{"Id":"ab1","Names":["/x"],"ImageID":"1","State":"exited"}]';;
    *containers/cd2/json*) printf '{"Id":"cd2","State":{"ExitCode":137,"OOMKilled":true,"FinishedAt":"now"}}';;
    *) exit 22;;
esac
"""


def test_a_container_that_goes_between_two_questions_costs_no_other(collect: Collect) -> None:
    containers = reading.machine(collect(systemctl="exit 0", curl=DOCKER), 0.0, 0.0, {}).containers

    assert containers is not None and containers["x"].state == "exited" and containers["x"].exit_status is None


def test_a_proxy_that_does_not_answer_costs_no_other(collect: Collect, machine: Path) -> None:
    (machine / "units/z-dynamic-amb.service").write_text("")
    answers = r"""case "$*" in */z-dynamic-amb/*) echo '{"Pid":2}';; *) echo '{"Pid":1}';; esac"""
    perl = r"""case "$*" in */proc/1/*) echo 1;; *) exit 1;; esac"""

    here = reading.machine(collect(systemctl="exit 0", curl=answers, perl=perl), 0.0, 0.0, {})
    assert here.ambassadors == {"blog": {}} and "ambassadors" not in here.missing


def test_each_app_that_is_published_is_asked_once(collect: Collect, machine: Path) -> None:
    for unit in ("blog", "blog@2", "jpblog", "blog-docker-reg"):
        (machine / f"units/{unit}.service").write_text("")
    # what was asked for stands before what is
    asked = '"PortBindings":{"80/tcp":[{"HostIp":"192.0.2.1","HostPort":""}]}'
    ports = f"""'{{{asked},"Ports":{{"80/tcp":[{{"HostIp":"192.0.2.1","HostPort":"%d"}}]}}}}'"""
    curl = f"""case "$*" in
        */blog/json) echo {ports % 1};;
        */blog-2/json) echo {ports % 2};;
        */192.0.2.1:1/*) printf 503;;
        */192.0.2.1:2/*) printf 000; exit 28;;
        *) exit 22;;
    esac"""

    here = reading.machine(collect(systemctl="exit 0", curl=curl), 0.0, 0.0, {})
    assert here.apps == {"blog": 503, "blog-2": 0} and "apps" not in here.missing


def test_lines_of_the_journal_are_cut_between_characters(collect: Collect) -> None:
    line = "1795663900.5 x: " + "日本" * 300
    here = reading.machine(collect(journalctl=f"echo '{line}'"), 0.0, 0.0, {})

    assert [len(f"1795663900.5 {it.text}") for it in here.journal] == [300]


# -- units whose text is not loaded ----------------------------------------------------------------------------------

BLOCK = (
    "Id={0}.service\nLoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nNeedDaemonReload=yes\n"
    "StateChangeTimestamp=@1\nStartLimitIntervalUSec=10s\nStartLimitBurst=5\nDropInPaths=\n"
    "FragmentPath={1}/systemd/{0}.service\n"
)
SYSTEMCTL = """
case "$*" in
    *Id,*) printf '%s\n' "$BLOCKS" ;;
    *-.slice) echo {of_all} ;;
    *UnitsLoadTimestamp*) echo 'Thu 2026-11-26 21:23:15.300000 UTC' ;;
esac"""
BEFORE, AFTER = 1795728195.2, 1795728195.4


@pytest.mark.parametrize(
    ("of_all", "stale"),
    [
        pytest.param("no", {"as-it-was", "changed", "dropped-in"}, id="systemd means those"),
        pytest.param("yes", {"changed", "dropped-in"}, id="it says so of all"),
    ],
)
def test_units_whose_files_changed_since_they_were_loaded(
    collect: Collect, machine: Path, of_all: str, stale: set[str]
) -> None:
    """A newer systemd says of all that they need a reload when a symlink of one is gone."""
    for path, changed in {
        "as-it-was.service": BEFORE,
        "changed.service": AFTER,
        "dropped-in.service.d/a.conf": AFTER,
    }.items():
        file = machine / "systemd" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (changed, changed))
    blocks = "\n".join(BLOCK.format(name, machine) for name in ("as-it-was", "changed", "dropped-in"))
    script = f"BLOCKS='{blocks}'\n{SYSTEMCTL.format(of_all=of_all)}"

    units = reading.machine(collect(systemctl=script), 0.0, 0.0, {}).units
    assert {name.removesuffix(".service") for name, unit in units.items() if unit.needs_reload} == stale
    assert len(units) == 3


def test_where_it_cannot_be_told_which_files_changed_nothing_is_said_of_units(collect: Collect, machine: Path) -> None:
    """No unit is taken for loaded by that."""
    script = f"BLOCKS='{BLOCK.format('a', machine)}'\n{SYSTEMCTL.format(of_all='yes')}"

    assert "\n@. units 1\n" in collect(systemctl=script, find="exit 1")
