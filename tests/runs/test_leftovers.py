"""What a run left on this machine: each leak is found, told once and removed; nothing of another run is touched."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import CommandFailed
from harness.record.log import Recorder
from harness.runs.leftovers import Leftovers
from tests.fakes import FakeRunner

Events = Callable[..., list[dict[str, Any]]]
OTHER = "20260801-120000-ffff"


@pytest.fixture
def run_id() -> str:
    """Another one for each test: processes and folders of this machine are real."""
    return f"20260801-120000-{secrets.token_hex(6)}"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc without processes, and without mounts of ours."""
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    mount(proc, "/")
    return proc


def mount(proc: Path, *points: str) -> None:
    with (proc / "self/mountinfo").open("a") as mounts:
        for point in points:
            mounts.write(f"36 35 98:0 /root {point} rw,noatime master:1 - ext4 /dev/root rw\n")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(autouse=True)
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: FakeRunner) -> None:
    """A Docker client on PATH, whose engine has nothing of the run."""
    client = tmp_path / "bin" / "docker"
    client.parent.mkdir()
    client.write_text("#!/bin/sh\necho a real client was called >&2; exit 1\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}:{os.environ['PATH']}")
    for listing in ("docker ps", "docker network ls", "docker volume ls"):
        runner.on(listing)


@pytest.fixture
def leftovers(runner: FakeRunner, recorder: Recorder, run_id: str, tmp_path: Path, proc: Path) -> Leftovers:
    return Leftovers(runner, recorder, run_id, tmp_path / "run", proc)


@pytest.fixture
def of_this_machine(runner: FakeRunner, recorder: Recorder, run_id: str, tmp_path: Path) -> Leftovers:
    return Leftovers(runner, recorder, run_id, tmp_path / "run")


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a process of a run."""
    started = []

    def start(argv: list[str], run_id: str, **environment: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PLATFORM_RUN": run_id, **environment}
        process = subprocess.Popen(argv, env=environment, start_new_session=True)
        started.append(process)
        while Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[0] != argv[0].encode():
            time.sleep(0.001)  # the child has not become its program yet
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def leaks(events: Events) -> list[tuple[str, str, bool]]:
    return [(event["what"], event["name"], event["removed"]) for event in events("leak")]


# -- leaks that stay -----------------------------------------------------------------------------------------------


def test_a_leak_that_cannot_be_removed_is_told_as_such(
    leftovers: Leftovers, runner: FakeRunner, events: Events
) -> None:
    runner.on("docker ps", "platform-x-coreos-0\nplatform-x-coreos-1\n")
    runner.on("docker rm --force --volumes platform-x-coreos-0", status=1, stderr="removal is in progress")
    runner.on("docker rm --force --volumes platform-x-coreos-1")
    leftovers.sweep()

    assert leaks(events) == [
        ("container", "platform-x-coreos-0", False),
        ("container", "platform-x-coreos-1", True),
    ]


def test_a_mount_that_cannot_be_removed_does_not_stop_the_sweep(
    leftovers: Leftovers, runner: FakeRunner, proc: Path, run_id: str, events: Events
) -> None:
    mount(proc, f"/srv/.runs/{run_id}/a", f"/srv/.runs/{run_id}/b")
    runner.on("umount --lazy", raises=CommandFailed(["umount"], 32, "", "not permitted"))
    runner.on("docker volume ls", "platform-x-data\n").on("docker volume rm")
    leftovers.sweep()

    assert [(what, removed) for what, _, removed in leaks(events)] == [
        ("mount", False),
        ("mount", False),
        ("volume", True),
    ]


def test_a_folder_that_cannot_be_removed_is_told_as_such(
    leftovers: Leftovers, temporary: Path, run_id: str, events: Events
) -> None:
    # no folder at all: rmtree refuses it
    (temporary / f"platform-{run_id}-file").touch()
    leftovers.sweep()

    assert leaks(events) == [("folder", str(temporary / f"platform-{run_id}-file"), False)]


def test_an_engine_that_does_not_answer_does_not_hide_what_else_is_left(
    leftovers: Leftovers, runner: FakeRunner, proc: Path, temporary: Path, run_id: str, events: Events
) -> None:
    folder = temporary / f"platform-{run_id}-abc"
    folder.mkdir()
    runner.on("docker", status=1, stderr="Cannot connect to the Docker daemon")

    with pytest.raises(CommandFailed, match="Cannot connect to the Docker daemon"):
        leftovers.sweep()

    assert leaks(events) == [("folder", str(folder), True)]
    assert not folder.exists()


# -- leaks of each kind --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "listing", "removal"),
    [
        ("container", "docker ps --all", "docker rm --force --volumes planted"),
        ("network", "docker network ls", "docker network rm planted"),
        ("volume", "docker volume ls", "docker volume rm --force planted"),
    ],
)
def test_what_is_left_in_the_engine_is_told_once_and_removed(
    leftovers: Leftovers, runner: FakeRunner, run_id: str, events: Events, what: str, listing: str, removal: str
) -> None:
    runner.on(f"{listing} --filter label=platform.run={run_id} --format", "planted\n").on(removal)
    leftovers.sweep()

    assert leaks(events) == [(what, "planted", True)]
    assert [call for call in runner.calls if " rm " in call] == [removal]


def test_the_engine_is_asked_for_nothing_but_this_run(leftovers: Leftovers, runner: FakeRunner, run_id: str) -> None:
    leftovers.sweep()

    assert len(runner.calls) == 3
    assert all(f"--filter label=platform.run={run_id} " in call for call in runner.calls)


def test_containers_go_before_the_networks_and_volumes_that_they_hold(leftovers: Leftovers, runner: FakeRunner) -> None:
    for listing in ("docker ps", "docker network ls", "docker volume ls"):
        runner.on(listing, "planted\n")
    for removal in ("docker rm", "docker network rm", "docker volume rm"):
        runner.on(removal)
    leftovers.sweep()

    removals = [call for call in runner.calls if " rm " in call]
    assert removals[0].startswith("docker rm ")
    assert len(removals) == 3


def test_without_a_docker_client_the_rest_is_still_looked_for(
    leftovers: Leftovers,
    runner: FakeRunner,
    temporary: Path,
    run_id: str,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (temporary / f"platform-{run_id}-abc").mkdir()
    leftovers.sweep()

    assert runner.calls == []
    assert [what for what, _, _ in leaks(events)] == ["folder"]


def test_a_process_of_the_run_is_told_once_and_killed(
    of_this_machine: Leftovers, start: Callable[..., Any], run_id: str, events: Events
) -> None:
    process = start(["sleep", "61"], run_id)
    of_this_machine.sweep()

    assert leaks(events) == [("process", f"{process.pid} sleep 61", True)]
    assert process.wait(5) == -signal.SIGKILL


def test_children_of_a_process_of_the_run_are_found_too(
    of_this_machine: Leftovers, start: Callable[..., Any], run_id: str, tmp_path: Path, events: Events
) -> None:
    child = tmp_path / "child"
    process = start(["sh", "-c", f"sleep 62 & echo $! >{child}; wait"], run_id)
    end = time.monotonic() + 5
    while not (child.exists() and child.read_text()) and time.monotonic() < end:
        time.sleep(0.001)
    of_this_machine.sweep()

    assert {int(name.split()[0]) for _, name, _ in leaks(events)} == {process.pid, int(child.read_text())}
    assert all(removed for _, _, removed in leaks(events))


@pytest.mark.parametrize("program", ["ssh-agent", "/usr/bin/ssh-agent"])
def test_an_agent_of_the_run_is_called_by_its_name(
    leftovers: Leftovers, proc: Path, run_id: str, events: Events, program: str
) -> None:
    process = subprocess.Popen(["sleep", "63"])
    entry = proc / str(process.pid)
    entry.mkdir()
    (entry / "environ").write_bytes(b"HOME=/root\0PLATFORM_RUN=" + run_id.encode() + b"\0")
    (entry / "cmdline").write_bytes(program.encode() + b"\0-D\0-a\0/tmp/agent\0")
    leftovers.sweep()

    assert process.wait(5) == -signal.SIGKILL
    assert leaks(events) == [("ssh-agent", f"{process.pid} {program} -D -a /tmp/agent", True)]


def test_an_agent_that_was_really_started_is_found(
    of_this_machine: Leftovers, start: Callable[..., Any], run_id: str, temporary: Path, events: Events
) -> None:
    # another program by that name: the real one hides its environment from everybody but root
    (temporary / "ssh-agent").symlink_to("/bin/sleep")
    process = start(["ssh-agent", "64"], run_id, PATH=str(temporary))
    of_this_machine.sweep()

    assert leaks(events) == [("ssh-agent", f"{process.pid} ssh-agent 64", True)]


def test_a_process_that_ended_by_itself_is_no_leak_that_stays(
    leftovers: Leftovers, proc: Path, run_id: str, events: Events
) -> None:
    # a number that the kernel never gives
    entry = proc / "4194999"
    entry.mkdir()
    (entry / "environ").write_bytes(f"PLATFORM_RUN={run_id}\0".encode())
    (entry / "cmdline").write_bytes(b"sleep\0")
    leftovers.sweep()

    assert [found for found in leaks(events) if not found[2]] == []


def test_a_mount_of_the_run_is_unmounted(
    leftovers: Leftovers, runner: FakeRunner, proc: Path, run_id: str, events: Events
) -> None:
    mount(proc, "/dev", f"/srv/.runs/{OTHER}/x", rf"/my\040folder/übung/.runs/{run_id}/mnt")
    runner.on("umount --lazy")
    leftovers.sweep()

    assert leaks(events) == [("mount", f"/my folder/übung/.runs/{run_id}/mnt", True)]
    assert runner.calls[0] == f"umount --lazy '/my folder/übung/.runs/{run_id}/mnt'"


def test_a_temporary_folder_of_the_run_is_removed(
    leftovers: Leftovers, temporary: Path, run_id: str, events: Events
) -> None:
    planted = temporary / f"platform-{run_id}-abc123"
    (planted / "deep").mkdir(parents=True)
    leftovers.sweep()

    assert leaks(events) == [("folder", str(planted), True)]
    assert not planted.exists()


# -- what still runs, before the cluster is removed ----------------------------------------------------------------


def test_processes_of_the_run_end_but_for_its_agent(
    of_this_machine: Leftovers, start: Callable[..., Any], run_id: str, temporary: Path, events: Events
) -> None:
    (temporary / "ssh-agent").symlink_to("/bin/sleep")
    agent = start(["ssh-agent", "67"], run_id, PATH=str(temporary))
    process, others = start(["sleep", "68"], run_id), start(["sleep", "69"], OTHER)
    (temporary / f"platform-{run_id}-abc").mkdir()
    of_this_machine.end_processes()

    assert process.wait(5) == -signal.SIGKILL
    assert (agent.poll(), others.poll()) == (None, None)
    assert (temporary / f"platform-{run_id}-abc").exists()
    assert leaks(events) == []


def test_process_that_ended_meanwhile_does_not_keep_the_others_from_ending(
    leftovers: Leftovers, proc: Path, run_id: str
) -> None:
    process = subprocess.Popen(["sleep", "70"])
    for number in ("4194999", str(process.pid)):  # the first is one that the kernel never gives
        (proc / number).mkdir()
        (proc / number / "environ").write_bytes(f"PLATFORM_RUN={run_id}\0".encode())
        (proc / number / "cmdline").write_bytes(b"sleep\0")
    leftovers.end_processes()

    assert process.wait(5) == -signal.SIGKILL


# -- what is not the run's -----------------------------------------------------------------------------------------


def test_a_clean_machine_has_no_leaks(of_this_machine: Leftovers, events: Events) -> None:
    of_this_machine.sweep()

    assert leaks(events) == []


def test_what_another_run_has_is_not_touched(
    leftovers: Leftovers,
    of_this_machine: Leftovers,
    proc: Path,
    temporary: Path,
    start: Callable[..., Any],
    run_id: str,
    events: Events,
) -> None:
    process = start(["sleep", "65"], OTHER, NOTE=f"not PLATFORM_RUN={run_id}", PLATFORM_RUN_BEFORE=run_id)
    longer = start(["sleep", "66"], run_id + "0")
    mount(proc, f"/srv/.runs/{OTHER}/mnt")
    folders = [temporary / f"platform-{OTHER}-abc", temporary / "platform-setup-abc", temporary / f"{run_id}-abc"]
    for folder in folders:
        folder.mkdir()
    leftovers.sweep()
    of_this_machine.sweep()

    assert leaks(events) == []
    assert (process.poll(), longer.poll()) == (None, None)
    assert all(folder.is_dir() for folder in folders)


def test_the_harness_does_not_kill_itself(
    leftovers: Leftovers, proc: Path, run_id: str, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda number, signal: killed.append(number))
    entry = proc / str(os.getpid())
    entry.mkdir()
    (entry / "environ").write_bytes(f"PLATFORM_RUN={run_id}\0".encode())
    (entry / "cmdline").write_bytes(b"python\0")
    leftovers.sweep()

    assert killed == []
    assert leaks(events) == []
