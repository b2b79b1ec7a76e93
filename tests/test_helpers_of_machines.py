"""The shell scripts that run on the machines: with real programs on loopback where there are some, and with stand-ins
first on PATH where the real ones would reach for the cluster (docker, nsupdate)."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from ambassador.etcd import EtcdRefused

from harness.drivers.contents import release_digest
from tests.test_ambassador import (
    DOMAIN,
    HOST,
    Haproxy,
    Program,
    RealEtcd,
    asked,
    eventually,
    free_ports,
    listens,
    program,
)

ROOT = Path(__file__).parent.parent
CONTAINER = ROOT / "container"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "RSYNC_PROXY", "RSYNC_CONNECT_PROG"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def script(source: Path, folder: Path, **places: str) -> Path:
    """A script as it is, or a copy with other text where it names what only a machine has to itself."""
    if not places:
        return source
    text = source.read_text()
    for place, instead in places.items():
        assert place in text, f"{source.name} does not name {place}"
        text = text.replace(place, instead)
    copy = folder / source.name
    copy.write_text(text)
    copy.chmod(0o755)
    return copy


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes a program of this name, a shell script, the first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name: str, text: str) -> None:
        # in one rename: a script that runs already finds the one or the other
        new = folder / f"{name}.new"
        new.write_text(f"#!/bin/sh\n{text}\n")
        new.chmod(0o755)
        new.rename(folder / name)

    return make


@pytest.fixture
def quick_clock(tmp_path: Path, stand_in: Callable[[str, str], None]) -> None:
    """For scripts, a second passes each time that they ask what time it is, and a pause takes none."""
    now = tmp_path / "now"
    now.write_text("0")
    stand_in("date", f"now=$(($(cat {now}) + 1))\necho $now > {now}\necho $now")
    stand_in("sleep", "exit 0")


def run(argv: list[str], within: float = 10, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )


# == fetch-contents ==================================================================================================

FILES = {
    "index.html": b"<h1>2</h1>",
    "version.txt": b"2\n",
    "a folder/with space.txt": b"",
    "a folder/-dash": b"-",
    "Z/later than a.txt": b"\x00\xff",
    "ひ/日本.html": "日本".encode(),
    ".hidden/file": b"hidden",
}
OLD = {"index.html": b"<h1>1</h1>", "version.txt": b"1\n"}


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, contents in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(contents)


def held(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


class Machines:
    """coreos-0, which fetches, and others, each a real rsync daemon over a folder of its own."""

    def __init__(self, folder: Path, etcd: RealEtcd) -> None:
        self._folder, self._etcd = folder, etcd
        self.home = folder / "coreos-0"
        self.home.mkdir()
        self._addresses = {"coreos-0": f"{HOST}:{free_ports(1)[0]}"}
        self.homes: dict[str, Path] = {}
        self._daemons: list[Program] = []

    def other(self, releases: dict[str, dict[str, bytes]], name: str = "") -> str:
        """A machine that holds these releases (SITE/releases/VERSION -> files) and hands them over; its name."""
        name = name or f"coreos-{len(self._addresses)}"
        home = self._folder / f"home of {name}"
        home.mkdir(exist_ok=True)
        self.homes[name] = home
        for place, files in releases.items():
            write(home / place, files)
        (port,) = free_ports(1)
        text = (ROOT / "infra/image/files/etc/platform/rsyncd.conf").read_text()
        assert text.count("path = /home/core\n") == 1
        # a daemon that root starts would become nobody; on a machine it is started as core
        own = "uid = 0\ngid = 0\n" if os.geteuid() == 0 else ""
        configuration = self._folder / f"{name}.conf"
        configuration.write_text(own + text.replace("path = /home/core\n", f"path = {home}\n"))
        argv = [program("rsync"), "--daemon", "--no-detach", f"--address={HOST}", f"--port={port}"]
        self._daemons.append(
            Program([*argv, f"--config={configuration}", "--log-file=/dev/null"], self._folder / f"{name}.log")
        )
        eventually(lambda: listens(port), within=5)
        self._addresses[name] = f"{HOST}:{port}"
        return name

    def lost(self) -> str:
        """A machine at whose address nobody answers."""
        name = f"coreos-{len(self._addresses)}"
        self._addresses[name] = f"{HOST}:{free_ports(1)[0]}"
        return name

    def deployed(self, site: str, version: str, digest: str) -> None:
        self._etcd.client.put(f"/platform/deployed/{site}", f"{version} {digest}", 60)

    def fetch(self, site: str = "", **replaced: str) -> subprocess.CompletedProcess[str]:
        """Runs the script once, for one site or all."""
        return run([*self.script(1, **replaced), "--now", site], within=30)

    def script(self, limit: int, **replaced: str) -> list[str]:
        """The script of this machine; `limit` is for how many minutes it asks again at the boot."""
        environment = self._folder / "machine.env"
        machines = " ".join(f"{name}={address}" for name, address in self._addresses.items())
        environment.write_text(f'MACHINE_NAME=coreos-0\nMACHINES="{machines}"\nPATIENCE={limit}\n')
        places = {
            "/etc/platform/machine.env": str(environment),
            "/home/core": str(self.home),
            "127.0.0.1:2379": self._etcd.address,
            **replaced,
        }
        return [str(script(ROOT / "infra/image/files/usr/local/sbin/fetch-contents", self._folder, **places))]

    @contextlib.contextmanager
    def followed(self, stand_in: Callable[[str, str], None]) -> Iterator[Callable[[], int]]:
        """Runs the script as the service does, with short pauses; gives how often it has paused since it was ready."""
        paused, ready = self._folder / "paused", self._folder / "ready"
        paused.write_text("")
        stand_in("systemd-notify", f'[ "$*" = --ready ] && touch {ready}')
        stand_in("sleep", f'[ ! -e {ready} ] || echo "$*" >> {paused}; exec /bin/sleep 0.05')
        following = Program(self.script(1), self._folder / "follow.log")
        try:
            yield lambda: len(paused.read_text().splitlines())
            assert following.process.poll() is None, following.said()
            assert set(paused.read_text().splitlines()) == {"5"}
        finally:
            following.kill()

    def current(self, site: str) -> str | None:
        link = self.home / site / "current"
        return str(link.readlink()) if link.is_symlink() else None

    def releases(self, site: str) -> list[str]:
        folder = self.home / site / "releases"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def end(self) -> None:
        for daemon in self._daemons:
            daemon.kill()


@pytest.fixture(scope="module")
def shared_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEtcd]:
    started = RealEtcd(tmp_path_factory.mktemp("etcd"))
    yield started
    started.kill()


@pytest.fixture
def machines(shared_etcd: RealEtcd, tmp_path: Path) -> Iterator[Machines]:
    folder = tmp_path / "machines"
    folder.mkdir()
    made = Machines(folder, shared_etcd)
    yield made
    made.end()
    shared_etcd.empty()


def test_an_etcd_that_does_not_answer_is_not_taken_for_nothing_deployed(
    machines: Machines, stand_in: Callable[[str, str], None]
) -> None:
    """fleet would give work to a machine without contents; systemd would try again, if it were told."""
    machines.deployed("blog", "2", release_digest(FILES))
    machines.other({"blog/releases/2": FILES})
    stand_in("curl", "echo 'curl: (7) Failed to connect' >&2; exit 7")
    done = machines.fetch()

    # its own, and that of the two machines
    assert (done.returncode, done.stderr) == (1, "curl: (7) Failed to connect\n" * 3)
    assert machines.current("blog") is None


@pytest.mark.parametrize(
    "answer", ["404 page not found", '{"message":"Internal Server Error"}', '{"errorCode":300,"message":"Raft"}', ""]
)
def test_an_answer_that_is_none_of_etcds_is_not_taken_for_nothing_deployed(
    machines: Machines, stand_in: Callable[[str, str], None], answer: str
) -> None:
    stand_in("curl", f"echo '{answer}'")
    done = machines.fetch()

    assert (done.returncode, done.stderr) == (1, f"etcd does not say what was deployed: {answer}\n" * 2)
    assert list(machines.home.iterdir()) == []


def test_where_nothing_was_deployed_there_is_nothing_to_do(machines: Machines) -> None:
    machines.other({})
    done = machines.fetch()

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(machines.home.iterdir()) == []


def test_contents_that_no_machine_holds_are_a_failure_and_leave_what_was_there(machines: Machines) -> None:
    machines.other({"jpblog/releases/2": FILES})
    machines.lost()
    machines.deployed("blog", "2", release_digest(FILES))
    write(machines.home / "blog/releases/1", OLD)
    (machines.home / "blog/current").symlink_to("releases/1")
    done = machines.fetch()

    assert done.returncode == 1
    assert "no machine hands over blog 2" in done.stderr
    assert machines.current("blog") == "releases/1"
    assert machines.releases("blog") == ["1"]


def test_the_machine_does_not_ask_itself(machines: Machines) -> None:
    machines.other({"blog/releases/2": FILES}, name="coreos-0")
    machines.deployed("blog", "2", release_digest(FILES))

    assert machines.fetch().returncode == 1
    assert machines.current("blog") is None


def test_contents_come_whole_from_another_machine_and_become_current(machines: Machines) -> None:
    source = machines.other({"blog/releases/2": FILES, "jpblog/releases/7": OLD})
    machines.deployed("blog", "2", release_digest(FILES))
    machines.deployed("jpblog", "7", release_digest(OLD))
    done = machines.fetch()

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == [f"blog 2 came from {source}", f"jpblog 7 came from {source}"]
    assert machines.current("blog") == "releases/2"
    assert held(machines.home / "blog/current") == FILES
    assert machines.current("jpblog") == "releases/7"
    assert held(machines.home / "jpblog/current") == OLD
    assert machines.releases("blog") == ["2"]


def test_a_machine_that_is_lost_and_one_that_holds_something_else_are_passed_over(machines: Machines) -> None:
    machines.lost()
    wrong = machines.other({"blog/releases/2": {**FILES, "more.html": b"more"}})
    machines.other({})
    right = machines.other({"blog/releases/2": FILES})
    machines.deployed("blog", "2", release_digest(FILES))
    done = machines.fetch()

    assert done.returncode == 0
    assert f"what {wrong} holds as blog 2 is not what was deployed" in done.stderr
    assert done.stdout == f"blog 2 came from {right}\n"
    assert held(machines.home / "blog/current") == FILES
    assert machines.releases("blog") == ["2"]


@pytest.mark.parametrize(
    "wrong",
    [{**FILES, "index.html": b"<h1>!</h1>"}, {k: v for k, v in FILES.items() if k != "version.txt"}, {}],
    ids=["a changed file", "a file less", "no file"],
)
def test_what_has_another_digest_never_becomes_current(machines: Machines, wrong: dict[str, bytes]) -> None:
    name = machines.other({"blog/releases/2": {**wrong}})
    if not wrong:
        (machines.homes[name] / "blog/releases/2").mkdir(parents=True)
    machines.deployed("blog", "2", release_digest(FILES))
    done = machines.fetch()

    assert done.returncode == 1
    assert f"what {name} holds as blog 2 is not what was deployed" in done.stderr
    # what came stays, for the next attempt to go on from
    assert (machines.current("blog"), machines.releases("blog")) == (None, ["2.partial"] if wrong else [])
    assert held(machines.home / "blog/releases/2.partial") == wrong


def test_a_site_that_cannot_be_had_does_not_keep_the_other_back(machines: Machines) -> None:
    machines.other({"jpblog/releases/7": OLD})
    machines.deployed("blog", "2", release_digest(FILES))
    machines.deployed("jpblog", "7", release_digest(OLD))
    done = machines.fetch()

    assert done.returncode == 1
    assert (machines.current("blog"), machines.current("jpblog")) == (None, "releases/7")


def test_a_machine_that_holds_what_was_deployed_asks_nobody(machines: Machines) -> None:
    machines.lost()
    machines.deployed("blog", "2", release_digest(FILES))
    write(machines.home / "blog/releases/2", FILES)
    (machines.home / "blog/current").symlink_to("releases/2")
    done = machines.fetch()

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_an_interrupted_fetch_left_is_no_obstacle(machines: Machines) -> None:
    machines.other({"blog/releases/2": FILES})
    machines.deployed("blog", "2", release_digest(FILES))
    write(machines.home / "blog/releases/1", OLD)
    write(machines.home / "blog/releases/2.partial", {"half": b"half"})
    (machines.home / "blog/current").symlink_to("releases/1")
    (machines.home / "blog/current.new").symlink_to("releases/1")

    assert machines.fetch().returncode == 0
    assert machines.current("blog") == "releases/2"
    assert held(machines.home / "blog/current") == FILES
    assert machines.releases("blog") == ["1", "2"]
    assert not (machines.home / "blog/current.new").is_symlink()


@pytest.mark.parametrize("before", [FILES, {"index.html": b"half of it"}], ids=["whole", "half of it"])
def test_a_release_that_is_there_and_not_current_becomes_current_as_it_was_deployed(
    machines: Machines, before: dict[str, bytes]
) -> None:
    """A machine that was lost after a deployment's upload and before its switch."""
    machines.other({"blog/releases/2": FILES})
    machines.deployed("blog", "2", release_digest(FILES))
    write(machines.home / "blog/releases/2", before)

    assert machines.fetch().returncode == 0
    assert machines.current("blog") == "releases/2"
    assert held(machines.home / "blog/current") == FILES


def test_the_etcd_of_another_machine_is_asked_where_the_own_does_not_answer(
    machines: Machines, stand_in: Callable[[str, str], None]
) -> None:
    machines.other({"blog/releases/2": FILES})
    machines.deployed("blog", "2", release_digest(FILES))
    real = f"{program('curl')} --silent http://{machines._etcd.address}/v2/keys/platform/deployed"
    stand_in("curl", f'case "$*" in *{HOST}:*:2379/*) exec {real} ;; esac\nexit 7')

    assert machines.fetch().returncode == 0
    assert held(machines.home / "blog/current") == FILES


def test_one_site_is_fetched_for_itself(machines: Machines) -> None:
    machines.other({"jpblog/releases/7": OLD})
    machines.deployed("blog", "2", release_digest(FILES))
    machines.deployed("jpblog", "7", release_digest(OLD))

    assert machines.fetch("jpblog").returncode == 0
    assert (machines.current("blog"), machines.current("jpblog")) == (None, "releases/7")
    assert machines.fetch("blog").returncode == 1


def test_a_member_that_lags_is_not_believed(machines: Machines, stand_in: Callable[[str, str], None]) -> None:
    """What a majority says is asked for before anything is switched."""
    machines.deployed("blog", "2", release_digest(FILES))
    for version, files in (("1", OLD), ("2", FILES)):
        write(machines.home / f"blog/releases/{version}", files)
    (machines.home / "blog/current").symlink_to("releases/2")
    node = f'"key":"/platform/deployed/blog","value":"1 {release_digest(OLD)}"'
    lags = f"""echo '{{"dir":true,"nodes":[{{{node}}}]}}'"""
    stand_in("curl", f'case "$*" in *quorum=true*) exec {program("curl")} "$@" ;; esac\n{lags}')
    with machines.followed(stand_in) as looks:
        eventually(lambda: looks() > 3, within=10)

    assert machines.current("blog") == "releases/2"


def test_a_machine_follows_what_was_deployed(machines: Machines, stand_in: Callable[[str, str], None]) -> None:
    source = machines.other({"blog/releases/2": FILES})
    machines.deployed("blog", "2", release_digest(FILES))
    with machines.followed(stand_in) as looks:
        eventually(lambda: looks() > 0, within=10)
        # it was ready when it held what was deployed by then
        assert machines.current("blog") == "releases/2"
        write(machines.homes[source] / "blog/releases/3", OLD)
        machines.deployed("blog", "3", release_digest(OLD))
        eventually(lambda: machines.current("blog") == "releases/3", within=10)
        # and back, where the deployment said so
        machines.deployed("blog", "2", release_digest(FILES))
        eventually(lambda: machines.current("blog") == "releases/2", within=10)

    assert machines.releases("blog") == ["2", "3"]


def test_a_machine_that_cannot_follow_goes_on_trying(machines: Machines, stand_in: Callable[[str, str], None]) -> None:
    source = machines.other({"blog/releases/2": FILES})
    machines.deployed("blog", "2", release_digest(FILES))
    with machines.followed(stand_in) as looks:
        eventually(lambda: looks() > 0, within=10)
        machines.deployed("blog", "3", release_digest(OLD))
        seen = looks()
        eventually(lambda: looks() > seen + 2, within=10)
        assert machines.current("blog") == "releases/2"
        write(machines.homes[source] / "blog/releases/3", OLD)
        eventually(lambda: machines.current("blog") == "releases/3", within=10)


def test_a_site_that_was_removed_from_etcd_is_served_on(
    machines: Machines, stand_in: Callable[[str, str], None]
) -> None:
    """An etcd that lost its keys takes no site off the air."""
    machines.other({"blog/releases/2": FILES})
    machines.deployed("blog", "2", release_digest(FILES))
    with machines.followed(stand_in) as looks:
        eventually(lambda: looks() > 0, within=10)
        machines._etcd.empty()
        seen = looks()
        eventually(lambda: looks() > seen + 2, within=10)

    assert machines.current("blog") == "releases/2"


def test_two_at_once_wait_for_each_other(machines: Machines, tmp_path: Path) -> None:
    machines.other({"blog/releases/2": FILES})
    machines.deployed("blog", "2", release_digest(FILES))
    lock = os.open(machines.home, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    argv = [*machines.script(1), "--now", ""]
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(run, argv) for _ in range(2)]
        time.sleep(0.5)
        assert machines.current("blog") is None
        os.close(lock)
        done = [it.result() for it in waiting]

    assert [it.returncode for it in done] == [0, 0]
    # the second one found that there is nothing to do
    assert sorted(it.stdout for it in done) == ["", "blog 2 came from coreos-1\n"]


def test_a_fetch_that_does_not_end_is_told(machines: Machines) -> None:
    machines.deployed("blog", "2", release_digest(FILES))
    lock = os.open(machines.home, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    done = machines.fetch(**{"30 * PATIENCE": "0"})
    os.close(lock)

    assert (done.returncode, done.stderr) == (1, "contents are fetched already, and that does not end\n")


def test_what_cannot_be_had_is_tried_again_until_it_is_there(
    machines: Machines, stand_in: Callable[[str, str], None], tmp_path: Path
) -> None:
    """First etcd does not answer, then nobody holds it, then half of it is there."""
    name = machines.other({"jpblog/releases/7": OLD})
    machines.deployed("blog", "2", release_digest(FILES))
    machines.deployed("jpblog", "7", release_digest(OLD))
    home, half, whole = machines.homes[name], tmp_path / "half", tmp_path / "whole"
    write(half / "releases/2", {"index.html": FILES["index.html"], "old.html": b"old"})
    write(whole / "releases/2", FILES)
    count = tmp_path / "count"
    stand_in(
        "sleep",
        f"""echo "$*" >> {count}
        case $(wc -l < {count}) in
            1) rm {tmp_path}/bin/curl ;;
            2) cp -r {half} '{home}/blog' ;;
            3) [ "$(ls {machines.home}/blog/releases)" = 2.partial ] || exit 1
               rm -r '{home}/blog' && cp -r {whole} '{home}/blog' ;;
        esac""",
    )
    stand_in("curl", "exit 7")
    # that is where it follows from then on
    stand_in("systemd-notify", "kill $PPID")
    done = run(machines.script(1), within=30)

    assert done.returncode == -signal.SIGTERM, done.stderr
    assert count.read_text() == "1\n" * 3
    assert done.stdout.splitlines() == [f"jpblog 7 came from {name}", f"blog 2 came from {name}"]
    assert (machines.current("blog"), machines.current("jpblog")) == ("releases/2", "releases/7")
    assert held(machines.home / "blog/current") == FILES
    assert machines.releases("blog") == ["2"]


def test_what_cannot_be_had_within_the_limit_is_given_up(
    machines: Machines, quick_clock: None, stand_in: Callable[[str, str], None]
) -> None:
    machines.other({})
    machines.deployed("blog", "2", release_digest(FILES))
    stand_in("systemd-notify", "exit 9")
    done = run(machines.script(1, **{"60 * PATIENCE": "3 * PATIENCE"}), within=30)

    assert done.returncode == 1
    assert done.stderr.count("no machine hands over blog 2") == 3


def test_a_transfer_that_breaks_off_is_gone_on_with(
    machines: Machines, stand_in: Callable[[str, str], None], tmp_path: Path
) -> None:
    source = machines.other({"blog/releases/2": FILES})
    machines.deployed("blog", "2", release_digest(FILES))
    real = program("rsync")
    # as one whose machine is lost amid it: some of the files have come
    stand_in("rsync", f'{real} --exclude=index.html --exclude=version.txt "$@"; exit 12')
    assert machines.fetch().returncode == 1
    assert machines.releases("blog") == ["2.partial"]
    came = {k: v for k, v in FILES.items() if k not in ("index.html", "version.txt")}
    assert held(machines.home / "blog/releases/2.partial") == came
    there = {name: (machines.home / "blog/releases/2.partial" / name).stat().st_ino for name in came}

    stand_in("rsync", f'exec {real} "$@"')
    assert machines.fetch().stdout == f"blog 2 came from {source}\n"
    assert held(machines.home / "blog/current") == FILES
    assert machines.releases("blog") == ["2"]
    # what had come was not sent again
    assert {name: (machines.home / "blog/current" / name).stat().st_ino for name in came} == there


def test_nothing_but_releases_is_handed_over_and_none_of_it_is_hidden_at_home(
    machines: Machines, tmp_path: Path
) -> None:
    secret = {"authorized_keys": b"key"}
    name = machines.other(
        {
            ".ssh": secret,
            ".ssh/releases.d": secret,
            "": {".bashrc": b"", ".hidden": b"", "plain": b""},
            "web": {"configure.sh": b"#!/bin/sh"},
            "blog": {".env": b"", "README.txt": b"", "more/releases/3/index.html": b"", "releases.txt": b""},
            "blog/releases/2": OLD,
            "jpblog/releases/7": FILES,
        }
    )
    home = machines.homes[name]
    (home / "blog/current").symlink_to("releases/2")
    (home / "blog/out").symlink_to(home / ".ssh")
    address = machines._addresses[name]
    stolen = tmp_path / "stolen"
    refused = (
        ".ssh/authorized_keys",
        ".ssh/",
        ".ssh",
        ".bashrc",
        "plain",
        "web/configure.sh",
        "web/",
        "blog/README.txt",
        "blog/.env",
        "blog/current/",
        "blog/out/",
        "blog/more/",
        "blog/releases/../../.ssh/",
    )
    with ThreadPoolExecutor() as pool:
        for asked_for in refused:
            for how in ("-a", "-aL", "-ak"):
                argv = [program("rsync"), how, f"rsync://{address}/contents/{asked_for}", f"{stolen}/"]
                pool.submit(run, argv)
    assert not stolen.exists() or held(stolen) == {}

    for how in ("-a", "-aL"):
        run([program("rsync"), how, f"rsync://{address}/contents/", f"{stolen}/"])
        releases = {"blog/releases/2": OLD, "jpblog/releases/7": FILES}
        assert held(stolen) == {f"{at}/{file}": it for at, files in releases.items() for file, it in files.items()}
    listed = run([program("rsync"), f"rsync://{address}/"])
    assert "contents" not in listed.stdout + listed.stderr
    for place in ("blog/", "blog/releases/2/", ""):
        done = run([program("rsync"), str(Path(__file__)), f"rsync://{address}/contents/{place}"])
        assert done.returncode != 0 and "read only" in done.stderr
    assert not list(home.rglob(Path(__file__).name))


# == publish.sh ======================================================================================================

NAMES = {
    "MACHINE_ADDRESS": "192.0.2.10",
    "BLOG_DOMAIN": "blog.example",
    "JPBLOG_DOMAIN": "jp.blog.example",
    "NAME_SERVER": "192.0.2.5",
}
UPDATE = """server 192.0.2.5
update delete blog.example A
update add blog.example 5 A 192.0.2.10
send
update delete jp.blog.example A
update add jp.blog.example 5 A 192.0.2.10
send
"""


class Publishing:
    """publish.sh with stand-ins that write down how they were called, and a sleep that is short."""

    def __init__(self, folder: Path, stand_in: Callable[[str, str], None]) -> None:
        self._folder = folder
        self.calls = folder / "calls"
        self.calls.write_text("")
        self._stand_in = stand_in
        self.curl("exit 0")
        self.nsupdate("exit 0")
        stand_in("sleep", f'echo "sleep $*" >> {self.calls}\nexec /bin/sleep 0.02')

    def curl(self, end: str) -> None:
        self._stand_in("curl", f'echo "curl $*" >> {self.calls}\n{end}')

    def nsupdate(self, end: str) -> None:
        said = self._folder / "said"
        # in one rename: whoever looks sees a whole update or none
        self._stand_in(
            "nsupdate",
            f'cat > {said}.new\nmv {said}.new {said}\necho "nsupdate $*" >> {self.calls}\n{end}',
        )

    def said(self) -> str:
        return (self._folder / "said").read_text()

    def count(self, name: str) -> int:
        return sum(line.split()[0] == name for line in self.calls.read_text().splitlines())

    @contextlib.contextmanager
    def running(self, **changed: str) -> Iterator[Program]:
        environment = {**NAMES, **changed, "PATH": os.environ["PATH"]}
        started = Program([str(CONTAINER / "name/publish.sh")], self._folder / "publish.log", **environment)
        try:
            yield started
        finally:
            started.kill()


@pytest.fixture
def publishing(tmp_path: Path, stand_in: Callable[[str, str], None]) -> Publishing:
    return Publishing(tmp_path, stand_in)


@pytest.mark.parametrize("missing", list(NAMES))
def test_a_name_is_not_published_without_all_that_it_takes(
    publishing: Publishing, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    given = {name: NAMES[name] for name in NAMES if name != missing}
    done = run([str(CONTAINER / "name/publish.sh")], within=2, **given)

    assert done.returncode != 0
    assert missing in done.stderr
    assert publishing.count("nsupdate") == 0


def test_no_name_leads_to_an_entry_point_that_does_not_answer(publishing: Publishing) -> None:
    publishing.curl("exit 7")
    with publishing.running():
        eventually(lambda: publishing.count("curl") > 3, within=3)
        assert publishing.count("nsupdate") == 0
        publishing.curl("exit 0")
        eventually(lambda: publishing.count("nsupdate") > 0, within=3)

    assert "http://192.0.2.10/" in publishing.calls.read_text().splitlines()[0].split()


def test_each_sites_name_leads_to_this_machine_and_is_kept_so(publishing: Publishing) -> None:
    with publishing.running() as script:
        eventually(lambda: publishing.count("nsupdate") >= 3, within=3)
        assert script.process.poll() is None

    assert publishing.said() == UPDATE
    calls = publishing.calls.read_text().splitlines()
    each = ["http://192.0.2.10/", "http://127.0.0.1:2379/v2/keys/?quorum=true", "/etc/platform/name.key", "5"]
    # it waits for the entry point; then looks at it and at etcd before each update
    assert [call.split()[-1] for call in calls[:9]] == each[:1] + each * 2
    assert calls[3:5] == ["nsupdate -t 3 -k /etc/platform/name.key", "sleep 5"]
    assert "--fail" in calls[2].split()


def test_a_machine_that_stood_still_leaves_the_names_to_another_for_a_while(
    publishing: Publishing, tmp_path: Path, stand_in: Callable[[str, str], None]
) -> None:
    clock, stood = tmp_path / "clock", tmp_path / "stood"
    clock.write_text("100\n")
    stand_in("date", f"cat {clock}")
    once = f'[ "$1" != 5 ] || [ -e {stood} ] || {{ touch {stood}; echo 120 > {clock}; }}'
    stand_in("sleep", f'echo "sleep $*" >> {publishing.calls}\n{once}\nexec /bin/sleep 0.02')
    with publishing.running() as script:
        eventually(lambda: publishing.count("nsupdate") >= 3, within=3)
        assert script.said() == "this machine stood still: the names stay as they are for now\n"

    words = [call.split() for call in publishing.calls.read_text().splitlines()]
    slept = [(before[0], said[1]) for before, said in pairwise(words) if said[0] == "sleep"]
    assert slept[:3] == [("nsupdate", "5"), ("sleep", "10"), ("nsupdate", "5")]


# a curl to whom one of the two does not answer
SILENT_ENTRY = 'case "$*" in *192.0.2.10*) exit 7 ;; esac'
SILENT_ETCD = 'case "$*" in *2379*) exit 22 ;; esac'


def test_a_name_is_not_renewed_when_the_entry_point_does_not_answer_any_more(publishing: Publishing) -> None:
    with publishing.running() as script:
        eventually(lambda: publishing.count("nsupdate") >= 2, within=3)
        publishing.curl(SILENT_ENTRY)

        assert script.ended() == 1
        assert script.said() == "the entry point of this machine does not answer any more\n"
    assert publishing.calls.read_text().splitlines()[-1].split()[-1] == "http://192.0.2.10/"


def test_a_machine_that_is_cut_off_from_the_others_leaves_the_names_alone_and_goes_on(publishing: Publishing) -> None:
    """Another one may be the entry point by now."""
    publishing.curl(SILENT_ETCD)
    with publishing.running() as script:
        eventually(lambda: publishing.count("sleep") > 3, within=3)
        assert script.process.poll() is None
        assert publishing.count("nsupdate") == 0
        assert set(script.said().splitlines()) == {
            "this machine's etcd does not reach the others: the names stay as they are"
        }
        assert {line for line in publishing.calls.read_text().splitlines() if line.startswith("sleep")} == {"sleep 5"}
        publishing.curl("exit 0")
        eventually(lambda: publishing.count("nsupdate") > 0, within=3)
        publishing.curl(SILENT_ETCD)
        told = len(script.said())
        eventually(lambda: len(script.said()) > told, within=3)
        count, told = publishing.count("nsupdate"), len(script.said())
        eventually(lambda: len(script.said()) > told, within=3)
        assert publishing.count("nsupdate") == count

    assert publishing.said() == UPDATE


def test_a_lone_member_of_a_real_etcd_does_not_answer_what_publishing_asks(
    shared_etcd: RealEtcd, tmp_path: Path
) -> None:
    """What says that a machine belongs: a read that takes a quorum, which one of two members is not."""
    asks = next(line for line in (CONTAINER / "name/publish.sh").read_text().splitlines() if "quorum" in line).strip()
    assert asks.count("http://127.0.0.1:2379/") == 1

    def status(port: int) -> int:
        shorter = asks.replace("127.0.0.1:2379", f"{HOST}:{port}").replace("--max-time 5", "--max-time 1")
        return run(["sh", "-c", shorter]).returncode

    assert status(shared_etcd.port) == 0
    client, peer, other = (f"http://{HOST}:{port}" for port in free_ports(3))
    argv = [program("etcd"), "--enable-v2", f"--data-dir={tmp_path}/etcd", f"--listen-client-urls={client}"]
    argv += [f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
    alone = Program([*argv, f"--initial-cluster=default={peer},other={other}"], tmp_path / "etcd.log")
    try:
        port = int(client.rpartition(":")[2])
        eventually(lambda: listens(port) or alone.process.poll() is not None, within=8)
        assert status(port) != 0
        assert alone.process.poll() is None, alone.said()
    finally:
        alone.kill()


def test_a_name_server_that_does_not_take_it_is_told_of_and_tried_again(publishing: Publishing) -> None:
    publishing.nsupdate("echo '; TSIG error with server: tsig indicates error' >&2; exit 2")
    with publishing.running() as script:
        eventually(lambda: publishing.count("nsupdate") >= 3, within=3)
        assert script.process.poll() is None
        assert "the name server 192.0.2.5 did not take it; trying again" in script.said()


def test_without_a_name_server_nothing_is_published_and_the_unit_stays(publishing: Publishing) -> None:
    with publishing.running(NAME_SERVER="") as script:
        eventually(lambda: publishing.count("sleep") > 0, within=3)
        assert script.ended() == 0
        assert script.said() == "this cluster has no name server: its entry point has a fixed address\n"

    assert publishing.calls.read_text() == "sleep infinity\n"


# == network.sh ======================================================================================================


def network(folder: Path) -> list[str]:
    place = {"/run/platform-network": str(folder / "lock")}
    return [str(script(CONTAINER / "ambassador/network.sh", folder, **place))]


# a Docker that has a network once it was made; making it takes a while
DOCKER = """echo "$*" >> {folder}/calls
case "$2" in
    inspect) [ -e {folder}/network ] ;;
    create) /bin/sleep 0.1; [ ! -e {folder}/network ] && touch {folder}/network ;;
esac"""


def test_a_network_that_cannot_be_made_is_a_failure(tmp_path: Path, stand_in: Callable[[str, str], None]) -> None:
    stand_in("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    done = run(network(tmp_path))

    assert done.returncode != 0
    assert "Cannot connect" in done.stderr


def test_a_network_is_made_once_though_many_units_ask_at_once(
    tmp_path: Path, stand_in: Callable[[str, str], None]
) -> None:
    stand_in("docker", DOCKER.format(folder=tmp_path))
    argv = network(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        done = [it.result() for it in [pool.submit(run, argv) for _ in range(4)]]

    assert [it.returncode for it in done] == [0] * 4
    calls = (tmp_path / "calls").read_text().splitlines()
    made = [call for call in calls if call.startswith("network create")]
    assert made == ["network create --opt com.docker.network.bridge.name=platform0 platform"]
    assert calls.count("network inspect platform") == 4


# == port.sh =========================================================================================================


@pytest.mark.parametrize(
    ("publishes", "listens", "anew"),
    [("", "docker-proxy", True), ("4711", "docker-proxy", False), ("", "nginx", False), ("", "", False)],
)
def test_docker_that_holds_the_port_of_a_container_that_is_gone_begins_anew(
    publishes: str, listens: str, anew: bool, tmp_path: Path, stand_in: Callable[[str, str], None]
) -> None:
    stand_in("docker", f"[ ! '{publishes}' ] || echo {publishes}")
    stand_in("ss", f"[ ! '{listens}' ] || echo 'LISTEN 0 4096 0.0.0.0:80 users:((\"{listens}\",pid=1,fd=4))'")
    stand_in("systemctl", f'echo "$*" >> {tmp_path}/calls')

    done = run([str(CONTAINER / "entry/port.sh")])

    calls = tmp_path / "calls"
    assert (done.returncode, calls.exists()) == ((1, True) if anew else (0, False))
    assert not anew or calls.read_text() == "kill --kill-whom=main --signal=KILL docker.service\n"


# == fetch.sh ========================================================================================================

REGISTRY = f"{HOST}:5000"
IMAGE = f"{REGISTRY}/web:1"
# a Docker that has an image once it was pulled, or where the file is there
ENGINE = """echo "$*" >> {folder}/calls
case "$1" in
    image) [ -e {folder}/image ] ;;
    pull) touch {folder}/image ;;
esac"""


def fetch(folder: Path, stand_in: Callable[[str, str], None], curl: str) -> tuple[int, str, list[str]]:
    """Status, what is said, and what Docker and curl are asked."""
    stand_in("docker", ENGINE.format(folder=folder))
    stand_in("curl", f'echo "curl $*" >> {folder}/calls; {curl}')
    stand_in("timeout", f'echo "timeout $1" >> {folder}/calls; shift; exec "$@"')
    done = run([str(CONTAINER / "image/fetch.sh"), IMAGE], PATIENCE="2")
    return done.returncode, done.stdout, (folder / "calls").read_text().splitlines()


def test_an_image_that_is_there_is_asked_of_nobody(tmp_path: Path, stand_in: Callable[[str, str], None]) -> None:
    (tmp_path / "image").touch()

    assert fetch(tmp_path, stand_in, "exit 7") == (0, "", [f"image inspect {IMAGE}"])


def test_an_image_comes_from_the_registry_within_a_time(tmp_path: Path, stand_in: Callable[[str, str], None]) -> None:
    status, said, calls = fetch(tmp_path, stand_in, "exit 0")

    assert (status, said) == (0, "")
    asked_for = f"curl --silent --output /dev/null --max-time 6 http://{REGISTRY}/v2/"
    assert calls == [f"image inspect {IMAGE}", asked_for, "timeout 120", f"pull --quiet {IMAGE}"]


@pytest.mark.parametrize("status", [7, 28])  # refused, timed out
def test_a_registry_that_does_not_answer_is_told_of_in_one_line(
    tmp_path: Path, stand_in: Callable[[str, str], None], status: int
) -> None:
    ended, said, calls = fetch(tmp_path, stand_in, f"exit {status}")

    assert ended == 1 and not any(call.startswith("pull") for call in calls)
    waits = f"waiting for the image registry {REGISTRY}, which does not answer: {IMAGE} is not on this machine\n"
    assert said == waits


# == forget-last-fleetd ==============================================================================================

MACHINES_KEY = "/_coreos.com/fleet/machines/0123456789abcdef/object"
STANDS_IN = "/_coreos.com/fleet/machines/0123456789abcdef-last/object"


@pytest.fixture
def fleets_etcd(shared_etcd: RealEtcd) -> RealEtcd:
    """That knows no machine of fleet's."""
    with contextlib.suppress(EtcdRefused):
        shared_etcd.raw("DELETE", "/_coreos.com", recursive="true")
    return shared_etcd


def forget(folder: Path, etcd: str, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "machine.env").write_text("MACHINE_ADDRESS=192.0.2.11\nPATIENCE=1\n")
    (folder / "machine-id").write_text("0123456789abcdef\n")
    places = {"/etc/platform/machine.env": f"{folder}/machine.env", "/etc/machine-id": f"{folder}/machine-id"}
    path = ROOT / "infra/image/files/usr/local/sbin/forget-last-fleetd"
    return run([str(script(path, folder, **places, **{"127.0.0.1:2379": etcd})), *words])


@pytest.mark.parametrize(
    ("address", "stays"), [("192.0.2.11", False), ("192.0.2.12", True), ("192.0.2.110", True), ("192.0.2.1", True)]
)
def test_the_key_of_this_machine_is_forgotten_and_no_other(
    fleets_etcd: RealEtcd, tmp_path: Path, address: str, stays: bool
) -> None:
    state = {"ID": "0123456789abcdef", "PublicIP": address, "Metadata": {"name": "coreos-1"}}
    value = json.dumps(state, separators=(",", ":"))
    fleets_etcd.client.put(MACHINES_KEY, value, 60)
    done = forget(tmp_path, fleets_etcd.address)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (fleets_etcd.node(MACHINES_KEY) is not None) == stays
    # fleet knows a machine by what a key says: never without one
    stands_in = fleets_etcd.node(STANDS_IN)
    assert (stands_in is None) if stays else (stands_in["value"] == value and 3 <= stands_in["ttl"] <= 5)


def test_what_stands_in_goes_when_fleetd_has_a_key_of_its_own(fleets_etcd: RealEtcd, tmp_path: Path) -> None:
    fleets_etcd.client.put(STANDS_IN, "{}", 60)
    with ThreadPoolExecutor() as other:
        done = other.submit(forget, tmp_path, fleets_etcd.address, "registered")
        time.sleep(0.5)
        assert not done.done() and fleets_etcd.node(STANDS_IN)
        fleets_etcd.client.put(MACHINES_KEY, "{}", 60)
        assert done.result().returncode == 0
    assert fleets_etcd.node(STANDS_IN) is None and fleets_etcd.node(MACHINES_KEY)


def test_where_nothing_stands_in_nobody_waits_for_a_key(fleets_etcd: RealEtcd, tmp_path: Path) -> None:
    assert forget(tmp_path, fleets_etcd.address, "registered").returncode == 0


def test_where_there_is_no_key_nothing_is_forgotten(fleets_etcd: RealEtcd, tmp_path: Path) -> None:
    assert forget(tmp_path, fleets_etcd.address).returncode == 0


def test_an_etcd_that_is_away_keeps_nobody_waiting(tmp_path: Path) -> None:
    assert forget(tmp_path, f"{HOST}:{free_ports(1)[0]}").returncode == 0


# == configure.sh ====================================================================================================


class Nginx:
    """A real nginx with the web image's own nginx.conf, and the site's configuration as a unit has it written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "conf.d").mkdir(parents=True)
        (self.port,) = free_ports(1)
        self.site = folder / "site"
        self.site.mkdir()
        own = ROOT / "units/images/web/files/etc/nginx/nginx.conf"
        # the folders that Debian's package makes belong to its installation, and the tests' own to whoever runs them
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
        user = "user root;" if os.geteuid() == 0 else ""
        script(
            own,
            folder,
            **{
                "/run/nginx.pid": f"{folder}/pid",
                "user www-data;": user,
                "    include conf.d": f"{temporary}    include conf.d",
            },
        )
        (folder / "mime.types").write_text("types { text/html html; text/xml xml; text/plain txt; }\n")

    def configure(self, *argv: str, **environment: str) -> None:
        """Runs a configure.sh, and turns its port and folder to those of this nginx."""
        out = self.folder / "conf.d/site.conf"
        done = run([argv[0], str(out), *argv[1:]], **environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        text = out.read_text()
        text = text.replace("listen 80", f"listen {HOST}:{self.port}").replace("/srv/site", str(self.site))
        out.write_text(text)

    @property
    def argv(self) -> list[str]:
        return [program("nginx"), "-e", "stderr", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]

    @contextlib.contextmanager
    def running(self) -> Iterator[Program]:
        started = Program(self.argv, self.folder / "log")
        try:
            eventually(lambda: listens(self.port) or self._ended(started), within=5)
            yield started
        finally:
            started.kill()

    def _ended(self, started: Program) -> bool:
        assert started.process.poll() is None, started.said()
        return False

    def asked(self, path: str = "/", host: str = DOMAIN, method: str = "GET") -> tuple[int, str]:
        return asked(self.port, path, method, host)


WEB = str(CONTAINER / "web/configure.sh")
ENTRY = str(CONTAINER / "entry/configure.sh")
ETCD = str(CONTAINER / "etcd/configure.sh")
DOMAINS = {"BLOG_DOMAIN": "blog.example", "JPBLOG_DOMAIN": "jp.blog.example"}


@pytest.fixture
def nginx(tmp_path: Path) -> Nginx:
    return Nginx(tmp_path / "nginx")


@pytest.mark.parametrize(
    "argv",
    [[WEB], [WEB, "OUT"], [WEB, "OUT", "blog"], [ENTRY], [ENTRY, "OUT"], [ETCD], [ETCD, "OUT"]],
    ids=lambda argv: " ".join(argv)[-24:],
)
def test_a_configuration_that_lacks_something_is_not_written_over_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str]
) -> None:
    for name in DOMAINS:
        monkeypatch.delenv(name, raising=False)
    out = tmp_path / "site.conf"
    out.write_text("the one before")
    done = run([part.replace("OUT", str(out)) for part in argv])

    assert done.returncode != 0
    assert out.read_text() == "the one before"


@pytest.mark.parametrize(("argv", "environment"), [((WEB, "OUT", "blog", DOMAIN), {}), ((ENTRY, "OUT"), DOMAINS)])
def test_a_configuration_is_written_whole_into_a_folder_that_it_makes(
    tmp_path: Path, argv: tuple[str, ...], environment: dict[str, str]
) -> None:
    out = tmp_path / "run/blog/site.conf"
    first = run([part.replace("OUT", str(out)) for part in argv], **environment)
    text = out.read_text()
    again = run([part.replace("OUT", str(out)) for part in argv], **environment)

    assert first.returncode == again.returncode == 0
    assert out.read_text() == text != ""
    assert list(out.parent.iterdir()) == [out]
    assert stat.S_IMODE(out.stat().st_mode) & 0o444 == 0o444  # nginx reads it in a container


def deploy(nginx: Nginx, version: str, files: dict[str, bytes]) -> None:
    """As bin/deploy-blog ends: a link is renamed."""
    write(nginx.site / "releases" / version, files)
    (nginx.site / "new").symlink_to(f"releases/{version}")
    (nginx.site / "new").rename(nginx.site / "current")


def test_a_site_that_nothing_was_deployed_to_answers_404_to_its_name_and_503_to_others(nginx: Nginx) -> None:
    nginx.configure(WEB, "blog", DOMAIN)
    with nginx.running():
        assert nginx.asked()[0] == 404
        assert nginx.asked(host="jp.blog.example")[0] == 503
        assert nginx.asked(host="")[0] in (400, 503)


def test_a_site_serves_what_is_current_to_its_own_name_only(nginx: Nginx) -> None:
    nginx.configure(WEB, "blog", DOMAIN)
    deploy(nginx, "1", {**OLD, "404.html": b"not here", "feed.xml": b"<feed/>"})
    with nginx.running():
        assert nginx.asked() == (200, "<h1>1</h1>")
        assert nginx.asked("/version.txt") == (200, "1\n")
        assert nginx.asked("/feed.xml") == (200, "<feed/>")
        assert nginx.asked("/no/such/page") == (404, "not here")
        assert nginx.asked("/404.html")[0] == 404
        for other in ("jp.blog.example", "www.blog.example", "blog.example.com", HOST):
            assert nginx.asked(host=other)[0] == 503
            assert nginx.asked("/version.txt", host=other)[0] == 503
        assert nginx.asked("/../../../etc/passwd")[0] in (400, 404)

        deploy(nginx, "2", FILES)
        assert nginx.asked() == (200, "<h1>2</h1>")
        assert nginx.asked("/version.txt") == (200, "2\n")


def services(port: int, path: str, host: str = DOMAIN) -> list[str] | None:
    """What an answer says whose it is."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("HEAD", path, headers={"Host": host})
        return connection.getresponse().headers.get_all("X-Service")
    finally:
        connection.close()


@pytest.mark.parametrize("deployed", [True, False], ids=["deployed", "nothing deployed"])
def test_each_answer_of_a_site_says_whose_it_is_once_and_none_to_another_name(nginx: Nginx, deployed: bool) -> None:
    nginx.configure(WEB, "blog", DOMAIN)
    if deployed:
        deploy(nginx, "1", {**OLD, "404.html": b"not here", "feed.xml": b"<feed/>", "folder/index.html": b""})
    with nginx.running():
        for path in ("/", "/version.txt", "/feed.xml", "/no/such/page", "/404.html", "/folder", "/folder/"):
            assert services(nginx.port, path) == ["blog"], path
            assert services(nginx.port, path, host="jp.blog.example") is None


def test_an_ambassador_takes_no_other_service_that_answers_to_its_name(tmp_path: Path) -> None:
    own, others = Nginx(tmp_path / "own"), Nginx(tmp_path / "others")
    own.configure(WEB, "blog", DOMAIN)
    others.configure(WEB, "jpblog", DOMAIN)
    haproxy = Haproxy(tmp_path)
    try:
        with own.running(), others.running():
            haproxy.proxy.serve([(HOST, own.port), (HOST, others.port)])
            eventually(lambda: haproxy.states()[f"{HOST}:{others.port}"] == "DOWN", within=3)
            # without contents too: 404 is an answer
            eventually(lambda: haproxy.states()[f"{HOST}:{own.port}"] == "UP", within=3)
            assert asked(haproxy.port)[0] == 404
    finally:
        haproxy.program.kill()


def test_an_ambassador_tells_a_site_from_another_and_its_checks_are_not_written_down(tmp_path: Path) -> None:
    own, others = Nginx(tmp_path / "own"), Nginx(tmp_path / "others")
    own.configure(WEB, "blog", DOMAIN)
    others.configure(WEB, "jpblog", "jp.blog.example")
    for one in (own, others):
        deploy(one, "1", {"index.html": one.folder.name.encode()})
    haproxy = Haproxy(tmp_path)
    try:
        with own.running() as log, others.running():
            haproxy.proxy.serve([(HOST, own.port), (HOST, others.port)])
            assert [asked(haproxy.port) for _ in range(20)] == [(200, "own")] * 20
            eventually(lambda: haproxy.states()[f"{HOST}:{others.port}"] == "DOWN", within=3)
            eventually(lambda: haproxy.states()[f"{HOST}:{own.port}"] == "UP", within=3)
            lines = [line for line in log.said().splitlines() if "HTTP/1" in line]
            assert len(lines) == 20
            assert not [line for line in lines if "HEAD" in line or "ambassador" in line]
    finally:
        haproxy.program.kill()


def test_the_entry_point_routes_each_sites_name_to_its_ambassador_and_no_other(nginx: Nginx) -> None:
    nginx.configure(ENTRY, **DOMAINS)
    text = (nginx.folder / "conf.d/site.conf").read_text()
    routes = dict(
        zip(
            [line.split()[1].rstrip(";") for line in text.splitlines() if "server_name" in line],
            [line.split()[2].rstrip(";") for line in text.splitlines() if "set $ambassador" in line],
            strict=True,
        )
    )
    assert routes == {"blog.example": "blog", "jp.blog.example": "jpblog"}
    assert text.count("proxy_pass http://$ambassador;") == 2
    with nginx.running():
        for other in ("elsewhere.example", HOST, "www.blog.example"):
            assert nginx.asked(host=other)[0] == 404


# == first-boot: how a machine that was made again joins the cluster that stands =======================================

THREE = " ".join(f"coreos-{number}=192.0.2.{10 + number}" for number in range(3))
OURS = "http://192.0.2.11:2380"
STARTED = "{id}: name={name} peerURLs=http://{ip}:2380 clientURLs=http://{ip}:2379 isLeader={leader}\n"
SURVIVORS = STARTED.format(id="aa10", name="coreos-0", ip="192.0.2.10", leader="true") + STARTED.format(
    id="aa12", name="coreos-2", ip="192.0.2.12", leader="false"
)
# A cluster in a folder: `members` as `etcdctl member list` has them, and one file for each thing that does not work now
CURL = """echo "curl $*" >> {folder}/calls
[ ! -e {folder}/nobody ] || exit 7
[ ! -e {folder}/no-leader ] || {{ echo '{{"health": "false"}}'; exit 0; }}
echo '{{"health": "true"}}'"""
ETCDCTL = """shift 2
echo "$*" >> {folder}/calls
[ "$ETCDCTL_API" = 2 ] || exit 1
[ ! -e "{folder}/no-$2" ] || {{ echo 'client: etcd cluster is unavailable or misconfigured' >&2; exit 1; }}
case $2 in
    list) cat {folder}/members ;;
    remove)
        grep -q "^$3[:[]" {folder}/members || exit 1
        sed -i "/^$3[:[]/d" {folder}/members
        echo "Removed member $3 from cluster" ;;
    add)
        ! grep -qw "peerURLs=$4" {folder}/members || {{ echo 'membership: peerURL exists' >&2; exit 1; }}
        echo "bb11[unstarted]: peerURLs=$4" >> {folder}/members
        echo "Added member named $3 with ID bb11 to cluster"
        echo
        echo 'ETCD_NAME="coreos-1"'
        echo 'ETCD_INITIAL_CLUSTER="{cluster}"'
        echo 'ETCD_INITIAL_CLUSTER_STATE="existing"' ;;
esac"""
JOINED = f"coreos-0=http://192.0.2.10:2380,coreos-1={OURS}"


class Joining:
    """coreos-1, made again: the functions of infra/first-boot, and a cluster that is acted."""

    def __init__(self, folder: Path, stand_in: Callable[[str, str], None]) -> None:
        self._folder = folder
        self.members = folder / "members"
        self.members.write_text(SURVIVORS)
        self._calls = folder / "calls"
        self._calls.write_text("")
        self._stand_in = stand_in
        stand_in("curl", CURL.format(folder=folder))
        stand_in("etcdctl", ETCDCTL.format(folder=folder, cluster=JOINED))
        self.heals_with_the_pause(0)

    def fails(self, what: str) -> None:
        (self._folder / what).touch()

    def heals_with_the_pause(self, number: int) -> None:
        """All works from this pause between two rounds on; with 0 never."""
        count = self._folder / "pauses"
        self._stand_in(
            "sleep",
            f"""echo "$*" >> {count}
            [ "$(wc -l < {count})" != {number} ] || rm -f {self._folder}/no-* {self._folder}/nobody
            exec /bin/sleep 0.05""",
        )

    def calls(self) -> list[str]:
        """What etcd was told, without the questions."""
        lines = self._calls.read_text().splitlines()
        return [line for line in lines if not line.startswith("curl") and line != "member list"]

    def rounds(self) -> int:
        """How often all the others were asked."""
        lines = self._calls.read_text().splitlines()
        return sum(line.startswith("curl") for line in lines) // 2

    def asked(self) -> set[str]:
        return {line.split()[-1] for line in self._calls.read_text().splitlines() if line.startswith("curl")}

    def join(self, limit: str = "1", **replaced: str) -> subprocess.CompletedProcess[str]:
        text = (ROOT / "infra/first-boot").read_text()
        functions = "".join(
            name + text.partition(f"\n{name}")[2].partition("\n}\n")[0] + "\n}\n"
            for name in ("of_survivors() {\n", "join_at() {\n", "etcdctl_v2() {\n")
        )
        for old, new in replaced.items():
            assert functions.count(old) == 1, f"first-boot has not one {old}"
            functions = functions.replace(old, new)
        given = f'set -eu\nMACHINE=coreos-1\nPEER_URL={OURS}\nMACHINES="{THREE}"\nPATIENCE={limit}\n'
        end = 'survivors=$(of_survivors join_at)\n[ -z "$survivors" ] || printf "%s\\n" "$survivors"\necho over >&2\n'
        return run(["sh", "-c", given + functions + end])


@pytest.fixture
def joining(tmp_path: Path, stand_in: Callable[[str, str], None]) -> Joining:
    return Joining(tmp_path, stand_in)


ADDED = f"member add coreos-1 {OURS}"
LOST = {
    "none": ("", []),
    "a lost one": (STARTED.format(id="cc11", name="coreos-1", ip="192.0.2.11", leader="false"), ["member remove cc11"]),
    "one that was added and never started": (f"dd11[unstarted]: peerURLs={OURS}\n", ["member remove dd11"]),
}


@pytest.mark.parametrize(("lost", "removed"), LOST.values(), ids=list(LOST))
def test_a_machine_made_again_is_forgotten_and_added_by_a_survivor(
    joining: Joining, lost: str, removed: list[str]
) -> None:
    joining.members.write_text(lost + SURVIVORS)
    done = joining.join()

    assert (done.returncode, done.stdout) == (0, f"{JOINED}\n")
    assert joining.calls() == [*removed, ADDED]
    assert joining.members.read_text() == f"{SURVIVORS}bb11[unstarted]: peerURLs={OURS}\n"
    assert joining.asked() == {"http://192.0.2.10:2379/health"}


@pytest.mark.parametrize("lost", [lost for lost, _ in LOST.values()], ids=list(LOST))
@pytest.mark.parametrize("what", ["nobody", "no-leader", "no-list", "no-remove", "no-add"])
def test_a_cluster_that_has_no_leader_at_first_is_asked_again(joining: Joining, what: str, lost: str) -> None:
    """Before it forgets the lost member, or between that and the new one."""
    joining.members.write_text(lost + SURVIVORS)
    joining.fails(what)
    joining.heals_with_the_pause(2)
    done = joining.join()

    assert (done.returncode, done.stdout) == (0, f"{JOINED}\n")
    assert joining.members.read_text() == f"{SURVIVORS}bb11[unstarted]: peerURLs={OURS}\n"
    assert joining.calls()[-1] == ADDED


def test_a_survivor_that_does_not_answer_is_passed_over(joining: Joining, stand_in: Callable[[str, str], None]) -> None:
    stand_in("curl", 'case "$*" in *192.0.2.12*) echo \'{"health": "true"}\' ;; *) exit 28 ;; esac')
    done = joining.join()

    assert (done.returncode, done.stdout) == (0, f"{JOINED}\n")
    assert joining.calls() == [ADDED]


def test_an_addition_that_was_taken_without_an_answer_is_made_again(
    joining: Joining, stand_in: Callable[[str, str], None], tmp_path: Path
) -> None:
    """The member is listed as one that never started: it is ours, and a second addition of it would be refused."""
    real = (tmp_path / "bin/etcdctl").rename(tmp_path / "bin/etcdctl.real")
    first = tmp_path / "first"
    lost = f'[ $4 != add ] || [ -e {first} ] || {{ touch {first}; {real} "$@" > /dev/null; exit 1; }}'
    stand_in("etcdctl", f'{lost}\nexec {real} "$@"')
    done = joining.join()

    assert (done.returncode, done.stdout) == (0, f"{JOINED}\n")
    assert joining.calls() == [ADDED, "member remove bb11", ADDED]


@pytest.mark.parametrize("what", ["nobody", "no-leader", "no-add"])
def test_of_a_cluster_that_lets_nobody_in_nothing_is_known_after_the_limit(
    joining: Joining, quick_clock: None, what: str
) -> None:
    joining.fails(what)
    done = joining.join(**{"30 * PATIENCE": "3 * PATIENCE"})

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith("over\n")
    assert joining.rounds() == 2  # of the third second the limit is the end
    assert joining.asked() == {f"http://192.0.2.{number}:2379/health" for number in (10, 12)}


def test_members_that_take_their_time_to_say_nothing_do_not_prolong_the_limit(
    joining: Joining, quick_clock: None, stand_in: Callable[[str, str], None], tmp_path: Path
) -> None:
    stand_in("curl", f"date > /dev/null; date > /dev/null; echo curl - >> {tmp_path}/calls; exit 28")
    done = joining.join(**{"30 * PATIENCE": "3 * PATIENCE"})

    assert (done.returncode, done.stdout) == (0, "")
    assert joining.rounds() == 1


def test_without_any_patience_nobody_is_asked(joining: Joining) -> None:
    done = joining.join(limit="0")

    assert (done.returncode, done.stdout) == (0, "")
    assert joining.asked() == set()


# == first-boot: what etcd is to be ====================================================================================

DISCOVERY_URL = "http://192.0.2.1/token"
# Answers as the discovery service does, where `size` says how many members it is for, and `met` who registered
DISCOVERY = """case "$*" in
    *_config/size*) [ -e {folder}/size ] && echo '{{"node":{{"value":"'$(cat {folder}/size)'"}}}}' || exit 28 ;;
    *{url}*) cat {folder}/met ;;
    *) [ -e {folder}/stands ] && echo '{{"health": "true"}}' || exit 7 ;;
esac"""
DISCOVERS = [f"ETCD_DISCOVERY={DISCOVERY_URL}"]
ALL = ",".join(f"coreos-{number}=http://192.0.2.{10 + number}:2380" for number in range(3))
LISTED = "".join(
    STARTED.format(id=f"aa1{number}", name=f"coreos-{number}", ip=f"192.0.2.{10 + number}", leader="true")
    for number in range(3)
)
MET = '{"node":{"nodes":[{"value":"coreos-0=a"},{"value":"coreos-1=b"},{"value":"coreos-2=c"}]}}'


class FirstBoot:
    """A machine whose first boot is run as it is, in a folder."""

    def __init__(self, folder: Path, stand_in: Callable[[str, str], None]) -> None:
        self._folder = folder
        for place in ("home/core", "etc/ssh", "etc/platform", "etc/default", "etc/fleet", "etc/docker"):
            (folder / place).mkdir(parents=True)
        self.configuration = folder / "etc/default/etcd"
        (folder / "members").write_text(LISTED)
        (folder / "calls").write_text("")
        stand_in("chown", "exit 0")
        stand_in("curl", DISCOVERY.format(folder=folder, url=DISCOVERY_URL))
        stand_in("etcdctl", ETCDCTL.format(folder=folder, cluster=JOINED))

    def discovery(self, size: str, met: str = '{"node":{}}') -> None:
        (self._folder / "size").write_text(size)
        (self._folder / "met").write_text(met)

    def cluster_stands(self) -> None:
        (self._folder / "stands").touch()

    def __call__(self, how: str = "", machine: int = 1) -> list[str]:
        """What etcd is told of its cluster."""
        text = (ROOT / "infra/first-boot").read_text().replace("/etc/", f"{self._folder}/etc/")
        text = text.replace("/home/core", f"{self._folder}/home/core").replace("30 * PATIENCE", "2 * PATIENCE")
        needed = ("IMAGE_REGISTRY", "PEERS", "BLOG_DOMAIN", "JPBLOG_DOMAIN", "NAME_SERVER", "NAME_KEY",
                  "AUTHORIZED_KEY", "HOST_KEY", "HOST_KEY_PUBLIC")  # fmt: skip
        given = "".join(f"{name}=x\n" for name in needed) + "HELPERS='644 blog/README.txt eA=='\nPATIENCE=1\n"
        given += f"MACHINE=coreos-{machine} ENTRY=yes ADDRESS=192.0.2.{10 + machine} DISCOVERY_URL={DISCOVERY_URL}\n"
        script = self._folder / "user-data"
        script.write_text(f"{given}MACHINES='{THREE} coreos-3=192.0.2.13'\n{text}")
        done = run(["sh", str(script), *([how] if how else [])])
        assert done.returncode == 0, done.stderr
        told = self.configuration.read_text().partition("ETCD_PRE_VOTE=")[2].splitlines()[1:]
        return [line for line in told if not line.startswith("ETCD_INITIAL_CLUSTER_TOKEN=")]


@pytest.fixture
def first_boot(tmp_path: Path, stand_in: Callable[[str, str], None]) -> FirstBoot:
    return FirstBoot(tmp_path, stand_in)


def existing(cluster: str) -> list[str]:
    return [f"ETCD_INITIAL_CLUSTER={cluster}", "ETCD_INITIAL_CLUSTER_STATE=existing"]


def test_members_of_a_new_cluster_meet_through_the_discovery_url(first_boot: FirstBoot) -> None:
    first_boot.discovery("3")

    assert first_boot() == DISCOVERS
    assert first_boot(machine=3) == ["ETCD_PROXY=on", *DISCOVERS]


@pytest.mark.parametrize("knows", [True, False])
def test_a_machine_made_again_joins_whether_the_discovery_service_answers_or_not(
    first_boot: FirstBoot, knows: bool
) -> None:
    first_boot.cluster_stands()
    if knows:
        first_boot.discovery("3", MET)

    assert first_boot() == existing(JOINED)


def test_a_machine_that_is_added_is_a_proxy_without_the_discovery_service_too(first_boot: FirstBoot) -> None:
    first_boot.cluster_stands()

    assert first_boot(machine=3) == ["ETCD_PROXY=on", *existing(ALL)]


def test_where_nobody_answers_the_discovery_url_is_all_that_is_left(first_boot: FirstBoot, quick_clock: None) -> None:
    assert first_boot() == DISCOVERS


def test_a_member_that_is_made_again_stays_one_however_few_the_others_are(
    first_boot: FirstBoot, tmp_path: Path
) -> None:
    first_boot.discovery("3")
    first_boot()
    first_boot.cluster_stands()
    (tmp_path / "members").write_text(LISTED.splitlines()[0] + "\n")

    assert first_boot("again") == existing(JOINED)


def test_a_proxy_that_is_made_again_stays_one(first_boot: FirstBoot) -> None:
    first_boot.discovery("3")
    first_boot(machine=3)
    first_boot.cluster_stands()

    assert first_boot("again", machine=3) == ["ETCD_PROXY=on", *existing(ALL)]


def test_a_cluster_that_begins_alone_is_another_one_each_time(first_boot: FirstBoot) -> None:
    first_boot.discovery("3")
    tokens = set()
    for _ in range(2):
        assert first_boot("alone") == [f"ETCD_INITIAL_CLUSTER=coreos-1={OURS}", "ETCD_INITIAL_CLUSTER_STATE=new"]
        tokens.add(next(it for it in first_boot.configuration.read_text().splitlines() if "_TOKEN=" in it))

    assert len(tokens) == 2


# == etcd-anew =========================================================================================================


class Anew:
    """coreos-1, on which somebody types etcd-anew; `healthy` are the addresses whose etcd is."""

    def __init__(self, folder: Path, stand_in: Callable[[str, str], None]) -> None:
        self._folder = folder
        self.data, self._calls, self._healthy = folder / "data", folder / "calls", folder / "healthy"
        (self.data / "member").mkdir(parents=True)
        self._calls.write_text("")
        self.healthy()
        (folder / "machine.env").write_text(f'MACHINES="{THREE}"\nMACHINE_ADDRESS=192.0.2.11\nPATIENCE=1\n')
        (folder / "configuration").write_text("ETCD_INITIAL_CLUSTER_STATE=new\n")
        stand_in("user-data", f'echo "user-data $*" >> {self._calls}')
        stand_in("systemctl", f'echo "$*" >> {self._calls}\n[ "$1" != reset-failed ]')
        stand_in("id", "echo 0")
        stand_in("curl", f"""for h in $(cat {self._healthy}); do case "$*" in *"//$h:"*) echo '"true"' ;; esac; done""")

    def healthy(self, *addresses: str) -> None:
        self._healthy.write_text(" ".join(addresses))

    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        text = (ROOT / "infra/image/files/usr/local/sbin/etcd-anew").read_text()
        for place, instead in {
            "/etc/platform/machine.env": str(self._folder / "machine.env"),
            "/etc/default/etcd": str(self._folder / "configuration"),
            "/var/lib/platform/user-data": "user-data",
            "/var/lib/etcd/default": str(self.data),
        }.items():
            assert place in text
            text = text.replace(place, instead)
        (self._folder / "etcd-anew").write_text(text)
        return run(["sh", str(self._folder / "etcd-anew"), *words])


@pytest.fixture
def anew(tmp_path: Path, stand_in: Callable[[str, str], None]) -> Anew:
    return Anew(tmp_path, stand_in)


STARTS = ["reset-failed etcd", "start etcd", "unset-environment ETCD_FORCE_NEW_CLUSTER"]


def test_a_member_joins_with_nothing_of_what_it_had(anew: Anew) -> None:
    anew.healthy("192.0.2.12")
    done = anew()

    assert (done.returncode, done.stderr) == (0, "")
    assert anew.calls() == ["stop etcd", "user-data again", *STARTS]
    assert not anew.data.exists()


def test_one_that_begins_alone_keeps_its_data_for_one_start_by_force(anew: Anew, tmp_path: Path) -> None:
    done = anew("alone")

    assert (done.returncode, done.stderr) == (0, "")
    force = "set-environment ETCD_FORCE_NEW_CLUSTER=true"
    assert anew.calls() == ["stop etcd", "user-data alone", force, *STARTS]
    assert (anew.data / "member").exists()
    # it would begin yet another one, should its data be lost
    assert (tmp_path / "configuration").read_text() == "ETCD_INITIAL_CLUSTER_STATE=existing\n"


def test_one_that_begins_alone_without_data_needs_no_force(anew: Anew) -> None:
    shutil.rmtree(anew.data)

    assert anew("alone").returncode == 0
    assert anew.calls() == ["stop etcd", "user-data alone", *STARTS]


@pytest.mark.parametrize(
    ("words", "healthy", "said"),
    [
        ((), [], "no other machine's etcd is healthy: begin with 'etcd-anew alone' where the data is"),
        ((), ["192.0.2.10", "192.0.2.11"], "this machine's etcd is healthy"),
        (("alone",), ["192.0.2.11"], "this machine's etcd is healthy"),
        (("alone",), ["192.0.2.10"], "the etcd of coreos-0 is healthy: join it by 'etcd-anew'"),
        (("again",), ["192.0.2.10"], "it takes no word but 'alone'"),
    ],
)
def test_what_would_lose_data_is_refused_in_one_line(
    anew: Anew, words: tuple[str, ...], healthy: list[str], said: str
) -> None:
    anew.healthy(*healthy)
    done = anew(*words)

    assert (done.returncode, done.stderr) == (1, f"etcd-anew: {said}\n")
    assert anew.calls() == [] and (anew.data / "member").exists()


# == keep-places =======================================================================================================


class KeepPlaces:
    """A machine with keep-places. Each time that it asks whether there is a quorum, the next moment begins: whether
    there is one, and whether fleetd answers."""

    def __init__(self, folder: Path, stand_in: Callable[[str, str], None]) -> None:
        self._folder, self._stand_in = folder, stand_in
        self._calls = folder / "calls"
        self.configuration, self.units, self.lease = folder / "etcd", folder / "units", folder / "lease"
        self.machines = folder / "machines"
        self.configuration.write_text("ETCD_NAME=coreos-0\n")
        self.has(units="aabb", machines="aabb ccdd")
        self.lease.write_text('"value":"{\\"MachineID\\":\\"aabb\\",\\"Version\\":1}"')
        (folder / "machine.env").write_text("PATIENCE=1\n")
        (folder / "machine-id").write_text("aabb\n")
        stand_in("systemctl", f'echo "$*" >> {self._calls}')
        stand_in("nft", f"case $1 in -f) cat > /dev/null; echo shut ;; delete) echo open ;; esac >> {self._calls}")

    def has(self, *, units: str, machines: str) -> None:
        """Which machines fleet has given units to, and which have told of themselves, in what etcd answers."""
        key = "/_coreos.com/fleet"
        targets = [
            f'{{"key":"{key}/job/{n}/target-state","value":"launched"}},{{"key":"{key}/job/{n}/target","value":"{it}"}}'
            for n, it in enumerate(units.split())
        ]
        self.units.write_text(f"[{','.join(targets)}]")
        self.machines.write_text(",".join(f'{{"key":"{key}/machines/{it}/object"}}' for it in machines.split()))

    def __call__(self, *moments: tuple[bool, bool]) -> list[str]:
        """What it does in these moments; it ends with the last."""
        self._calls.write_text("")
        for number, (quorum, fleetd) in enumerate(moments, 1):
            (self._folder / f"quorum-{number}").write_text(str(quorum))
            (self._folder / f"fleetd-{number}").write_text(str(fleetd))
        count, uptime = self._folder / "moment", self._folder / "uptime"
        count.write_text("0")
        uptime.write_text("100.00 0.00\n")
        self._stand_in(
            "sleep",
            f"""read -r now _ < {uptime}; echo "$(echo "$now $1" | awk '{{printf "%.2f", $1 + $2}}') 0.00" > {uptime}
            [ -e {self._folder}/quorum-$(($(cat {count}) + 1)) ]""",
        )
        self._stand_in(
            "curl",
            f"""n=$(cat {count})
            begins() {{ n=$((n + 1)); echo $n > {count}; }}
            is() {{ grep -q True {self._folder}/$1-$n; }}
            told() {{ is quorum && printf 200 || printf 000; }}
            case "$*" in
                *fleet.sock*--next*refresh=true*aabb/object*) begins; is fleetd && told ;;
                *2379/health*) is quorum && echo '{{"health":"true"}}' ;;
                *refresh=true*aabb/object*) begins; told ;;
                *fleet.sock*) is fleetd ;;
                *PUT*engine-leader*nobody*) echo "hold $(echo "$*" | sed 's/.*ttl=//')" >> {self._calls} ;;
                *DELETE*engine-leader*nobody*) echo release >> {self._calls} ;;
                *engine-leader*) cat {self.lease} ;;
                *machines*recursive*) [ -e {self.machines} ] && cat {self.machines} ;;
                *job*) cat {self.units} ;;
            esac""",
        )
        places = {
            "/etc/platform/machine.env": "machine.env",
            "/etc/machine-id": "machine-id",
            "/etc/default/etcd": "etcd",
            "/proc/uptime": "uptime",
        }
        path = ROOT / "infra/image/files/usr/local/sbin/keep-places"
        given = {place: str(self._folder / instead) for place, instead in places.items()}
        done = run(["sh", str(script(path, self._folder, **given))])
        assert done.stderr == ""
        return self._calls.read_text().splitlines()


KILLS = "kill --signal=KILL fleet.service"
WELL, LOST, BACKS_OFF = (True, True), (False, True), (True, False)
# a question each second while all is well, and five while it is not
TWO_SECONDS, FOUR_SECONDS, SIX_SECONDS = (LOST,) * 6, (LOST,) * 16, (LOST,) * 26
LONG = ["shut", "hold 30", "hold 30", "open"]


@pytest.fixture
def keep_places(tmp_path: Path, stand_in: Callable[[str, str], None]) -> KeepPlaces:
    return KeepPlaces(tmp_path, stand_in)


def test_what_is_over_before_any_key_is_lost_is_left_alone(keep_places: KeepPlaces) -> None:
    assert keep_places(WELL, *TWO_SECONDS, WELL, WELL) == []


@pytest.mark.parametrize(("fleetd", "killed"), [(WELL, []), (BACKS_OFF, [KILLS])])
def test_without_a_quorum_for_seconds_nobody_leads_until_each_fleetd_can_be_back(
    keep_places: KeepPlaces, fleetd: tuple[bool, bool], killed: list[str]
) -> None:
    """What is lost with etcd's leader is told for lost soon after: it is held no longer."""
    keep_places.has(units="aabb ccdd", machines="aabb")
    assert keep_places(WELL, *FOUR_SECONDS, fleetd, *[WELL] * 9) == ["shut", "hold 5", "open", *killed]


def test_who_holds_the_lease_for_longer_is_not_to_hold_it_for_less(keep_places: KeepPlaces) -> None:
    keep_places.lease.write_text('"value":"{\\"MachineID\\":\\"nobody\\",\\"Version\\":1}"')
    assert keep_places(WELL, *FOUR_SECONDS, WELL, WELL) == ["shut", "open"]


def test_without_a_quorum_for_long_nobody_leads_until_all_are_back(keep_places: KeepPlaces) -> None:
    assert keep_places(WELL, *SIX_SECONDS, BACKS_OFF, *[WELL] * 7) == [
        *LONG,
        KILLS,
        *["hold 29", "hold 28", "hold 27", "hold 26"],
        "release",
    ]


@pytest.mark.parametrize("lacks", ["a machine", "an answer"])
def test_nobody_leads_until_the_machines_of_all_units_are_back_or_half_a_minute_is_over(
    keep_places: KeepPlaces, lacks: str
) -> None:
    keep_places.has(units="ccdd aabb", machines="aabb")
    if lacks == "an answer":
        keep_places.has(units="aabb", machines="aabb")
        keep_places.machines.unlink()
    done = keep_places(WELL, *SIX_SECONDS, *[WELL] * 40)
    assert done == [*LONG, *(f"hold {max(left, 5)}" for left in range(29, 0, -1))]


def test_a_second_loss_while_the_lease_is_held_is_met_as_the_first(keep_places: KeepPlaces) -> None:
    done = keep_places(WELL, *SIX_SECONDS, WELL, *SIX_SECONDS, *[WELL] * 8)
    assert done == [*LONG, *LONG, *["hold 29", "hold 28", "hold 27", "hold 26"], "release"]


def test_an_etcd_that_knows_no_unit_is_kept_from_fleet_until_one_comes(keep_places: KeepPlaces, tmp_path: Path) -> None:
    """A backup comes while it waits, and the door opens behind it; without one it opens at the end of the limit."""
    keep_places.units.write_text('{"errorCode":100}')
    assert keep_places(WELL, *SIX_SECONDS, WELL, WELL)[:4] == LONG
    asked_in_vain = float((tmp_path / "uptime").read_text().split()[0])

    keep_places.has(units="aabb", machines="aabb")
    assert keep_places(WELL, *SIX_SECONDS, WELL, WELL)[:4] == LONG
    assert float((tmp_path / "uptime").read_text().split()[0]) < asked_in_vain - 30


def test_while_there_is_a_quorum_fleet_is_left_alone(keep_places: KeepPlaces) -> None:
    assert keep_places(WELL, BACKS_OFF, BACKS_OFF, WELL) == []


def test_a_machine_that_boots_has_nothing_to_keep(keep_places: KeepPlaces) -> None:
    assert keep_places(*[(False, False)] * 40, BACKS_OFF, WELL) == []


def test_a_proxy_asks_half_as_often(keep_places: KeepPlaces, tmp_path: Path) -> None:
    keep_places.configuration.write_text("ETCD_PROXY=on\n")
    assert keep_places(*[WELL] * 5) == []
    assert (tmp_path / "uptime").read_text() == "112.00 0.00\n"
