"""The Docker Engine: one that answers is taken, else one is installed and started, or it is said who has to."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import CommandFailed, ExitStatus, HarnessError, Misconfigured, PlatformWrong
from harness.setup import engine as engine_module
from harness.setup.engine import Engine
from harness.setup.limits import exclusive
from tests.engines import INFO, changes, locked
from tests.fakes import FakeRunner

Programs = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("locks_of_this_machine")


def test_a_user_who_may_not_use_the_engine_is_told_so(engine: Engine, silent: FakeRunner) -> None:
    silent.on(
        "docker version", status=1, stderr="permission denied while trying to connect to the Docker daemon socket"
    )

    with pytest.raises(Misconfigured, match="this user may not use the Docker Engine: add it to group docker"):
        engine.ensure()
    assert changes(silent) == []


DENIED = "permission denied while trying to connect to the Docker daemon socket"


@pytest.mark.parametrize("has_setfacl", [False, True])
def test_a_user_with_sudo_is_let_in(
    engine: Engine, silent: FakeRunner, programs: Programs, monkeypatch: pytest.MonkeyPatch, has_setfacl: bool
) -> None:
    programs("docker", "dockerd", "apt-get", "sudo", *(["setfacl"] if has_setfacl else []))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    silent.on("docker version", status=1, stderr=DENIED).on("sudo -n true").on("sudo -n env")
    silent.on("sudo -n setfacl", does=lambda: silent.on("docker version", "28.1.0\n"))

    assert engine.ensure() == "cached"
    assert [call for call in silent.calls if "install" in call] == [
        call for call in silent.calls if call.endswith(" -y acl") and not has_setfacl
    ]
    assert "sudo -n setfacl --modify user:1000:rw /var/run/docker.sock" in silent.calls


@pytest.mark.parametrize("hurdle", ["no sudo", "setfacl fails", "another host"])
def test_a_user_who_cannot_be_let_in_is_told_what_to_do(
    engine: Engine, silent: FakeRunner, programs: Programs, monkeypatch: pytest.MonkeyPatch, hurdle: str
) -> None:
    programs("docker", "dockerd", "setfacl", *([] if hurdle == "no sudo" else ["sudo"]))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if hurdle == "another host":
        monkeypatch.setenv("DOCKER_HOST", "unix:///elsewhere.sock")
    silent.on("docker version", status=1, stderr=DENIED).on("sudo -n true")
    silent.on("sudo -n setfacl", status=1, stderr="Operation not supported")

    with pytest.raises(Misconfigured, match="add it to group docker and log in again, or run as root"):
        engine.ensure()


@pytest.mark.parametrize(
    "info",
    [
        {**INFO, "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]},
        {**INFO, "OperatingSystem": "Docker Desktop", "SecurityOptions": None},
    ],
    ids=["rootless", "Docker Desktop"],
)
def test_an_engine_whose_containers_are_out_of_reach_is_refused(
    engine: Engine, runner: FakeRunner, debian: None, info: dict[str, Any]
) -> None:
    runner.on("docker version", "28.1.0\n").on("docker info", json.dumps(info))

    with pytest.raises(Misconfigured, match="point DOCKER_HOST at a Docker Engine of this Linux machine"):
        engine.ensure()


def test_an_engine_elsewhere_that_is_silent_is_not_started_here(
    engine: Engine, silent: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.9:2375")

    with pytest.raises(Misconfigured, match=r"DOCKER_HOST is tcp://10.0.0.9:2375, and no engine answers there"):
        engine.ensure()
    assert changes(silent) == []


@pytest.mark.parametrize(
    "release", [{"ID": "fedora", "PRETTY_NAME": "Fedora 43"}, {"ID": "alpine", "ID_LIKE": ""}, {}], ids=str
)
def test_on_another_system_the_engine_is_the_persons_to_install(
    engine: Engine, silent: FakeRunner, monkeypatch: pytest.MonkeyPatch, release: dict[str, str]
) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)

    name = release.get("PRETTY_NAME", "this system")
    with pytest.raises(Misconfigured, match=f"no Docker Engine answers, and on {name} it is not installed from here"):
        engine.ensure()
    assert changes(silent) == []


def test_on_a_system_without_a_name_the_engine_is_the_persons_to_install(
    engine: Engine, silent: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unnamed() -> dict[str, str]:
        raise FileNotFoundError(2, "Unable to read files /etc/os-release, /usr/lib/os-release")

    monkeypatch.setattr(platform, "freedesktop_os_release", unnamed)

    with pytest.raises(Misconfigured, match="no Docker Engine answers"):
        engine.ensure()


@pytest.mark.parametrize("sudo", ["none", "asks a password"])
def test_without_root_the_engine_is_the_persons_to_start(
    engine: Engine, silent: FakeRunner, programs: Programs, monkeypatch: pytest.MonkeyPatch, sudo: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if sudo != "none":
        programs("sudo")
        silent.on("sudo -n true", status=1, stderr="sudo: a password is required")

    with pytest.raises(Misconfigured, match="root is needed to install and start a Docker Engine") as refused:
        engine.ensure()
    assert "sudo that asks no password" in str(refused.value)
    assert refused.value.status is ExitStatus.MISCONFIGURED
    assert changes(silent) == []


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 1, "stderr": "Cannot connect to the Docker daemon"},
        {"raises": PlatformWrong("command `docker version` did not end within 20 s: no output")},
    ],
    ids=["silent", "hangs"],
)
def test_an_engine_that_does_not_answer_any_more_is_the_environments_failure(
    engine: Engine, runner: FakeRunner, debian: None, answer: dict[str, Any]
) -> None:
    runner.on("docker version", **answer)

    with pytest.raises(HarnessError) as failed:
        engine.require_answer()
    assert failed.value.status is ExitStatus.ENVIRONMENT_FAILED


def test_an_engine_that_answers_is_taken(engine: Engine, runner: FakeRunner, debian: None) -> None:
    runner.on("docker version", "28.1.0\n").on("docker info", json.dumps(INFO))

    assert engine.ensure() == "cached"
    assert (engine.version, engine.cgroup_version) == ("28.1.0", "v2")
    assert changes(runner) == []


def test_an_engine_elsewhere_that_answers_is_taken(
    engine: Engine, runner: FakeRunner, debian: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/other.sock")
    runner.on("docker version", "28.1.0\n").on("docker info", json.dumps(INFO))

    assert engine.ensure() == "cached"


def test_an_engine_that_is_installed_is_started(
    engine: Engine, silent: FakeRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine_module, "PID_FILE", tmp_path / "docker.pid")

    assert engine.ensure() == "done"
    assert engine.version == "28.1.0"
    assert [call for call in changes(silent) if "apt-get" in call] == []


def test_an_engine_that_is_missing_is_installed_with_its_client_and_started(
    engine: Engine, silent: FakeRunner, programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine_module, "PID_FILE", tmp_path / "docker.pid")
    folder = programs()
    for name in ("docker", "dockerd"):
        (folder / name).unlink()
    apt = "env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120"
    silent.on(f"{apt} update").on(
        f"{apt} install --no-install-recommends -y docker.io apparmor", does=lambda: programs("dockerd")
    )
    silent.on(f"{apt} install --no-install-recommends -y docker-cli", does=lambda: programs("docker"))

    assert engine.ensure() == "done"
    assert [call.split()[-1] for call in changes(silent)[:4]] == ["update", "apparmor", "update", "docker-cli"]


def test_an_engine_that_another_process_started_meanwhile_is_taken(
    engine: Engine, silent: FakeRunner, tmp_path: Path
) -> None:
    """It is waited for at the lock: while it starts, nobody starts a second one."""
    asked = threading.Event()
    outcome: list[str] = []
    silent.on("docker version", status=1, stderr="Cannot connect", does=asked.set)
    with exclusive("engine"):
        thread = threading.Thread(target=lambda: outcome.append(engine.ensure()))
        thread.start()
        assert asked.wait(5)
        silent.on("docker version", "28.1.0\n")
        assert thread.is_alive() and outcome == []
    thread.join(5)

    assert outcome == ["cached"]
    assert changes(silent) == []
    assert engine.version == "28.1.0"


def test_an_engine_is_started_under_the_lock_and_freed_whatever_happens(
    engine: Engine, silent: FakeRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine_module, "PID_FILE", tmp_path / "docker.pid")
    held: list[bool] = []

    def fail() -> None:
        held.append(locked("engine", tmp_path / "tmp"))
        raise CommandFailed(["dockerd"], 1, "", "no space left on device")

    silent.on("systemctl start docker", does=fail).on("sh -c", does=fail)

    with pytest.raises(CommandFailed):
        engine.ensure()
    assert held == [True]
    assert not locked("engine", tmp_path / "tmp")


def test_an_engine_that_answers_is_not_waited_for(engine: Engine, runner: FakeRunner, debian: None) -> None:
    runner.on("docker version", "28.1.0\n").on("docker info", json.dumps(INFO))

    with exclusive("engine"):  # another run starts one, for another user
        assert engine.ensure() == "cached"


def test_sudo_that_asks_no_password_is_used(
    engine: Engine, silent: FakeRunner, programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine_module, "PID_FILE", tmp_path / "docker.pid")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    programs("sudo")
    for command in ("systemctl start docker", "sh -c"):
        silent.on(f"sudo -n {command}", does=lambda: silent.on("docker version", "28.1.0\n"))
    silent.on("sudo -n rm").on("sudo -n true")

    assert engine.ensure() == "done"
    assert all(call.startswith("sudo -n ") for call in changes(silent))


# -- the pid file of an engine that is no more ---------------------------------------------------------------------


@pytest.fixture
def pid_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "docker.pid"
    monkeypatch.setattr(engine_module, "PID_FILE", file)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return file


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a process whose name is `name`, for `seconds`."""
    started = []

    def start(name: str, seconds: float) -> subprocess.Popen[bytes]:
        (tmp_path / name).symlink_to("/bin/sleep")
        started.append(subprocess.Popen([tmp_path / name, str(seconds)]))
        end = time.monotonic() + 5
        while (comm := Path(f"/proc/{started[-1].pid}/comm")).read_text().strip() != name and time.monotonic() < end:
            time.sleep(0.001)
        assert comm.read_text().strip() == name
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


def removed(engine: Engine, runner: FakeRunner, pid_file: Path) -> bool:
    runner.on(f"rm -f {pid_file}")
    engine._remove_stale_pid()
    return f"rm -f {pid_file}" in runner.calls


def test_the_pid_file_of_an_engine_that_runs_stays(
    engine: Engine, runner: FakeRunner, pid_file: Path, process: Callable[..., Any]
) -> None:
    pid_file.write_text(f"{process('dockerd', 60).pid}\n")

    assert not removed(engine, runner, pid_file)


def test_the_pid_file_of_a_zombie_is_removed(
    engine: Engine, runner: FakeRunner, pid_file: Path, process: Callable[..., Any]
) -> None:
    zombie = process("dockerd", 60)
    zombie.send_signal(signal.SIGKILL)
    end = time.monotonic() + 5
    while " Z " not in Path(f"/proc/{zombie.pid}/stat").read_text() and time.monotonic() < end:
        time.sleep(0.001)
    pid_file.write_text(str(zombie.pid))

    assert removed(engine, runner, pid_file)


def test_the_pid_file_with_the_number_of_another_process_is_removed(
    engine: Engine, runner: FakeRunner, pid_file: Path, process: Callable[..., Any]
) -> None:
    pid_file.write_text(str(process("not-dockerd", 60).pid))

    assert removed(engine, runner, pid_file)


@pytest.mark.parametrize("content", ["4194999", "", "no number", "-1"], ids=["ended", "empty", "no number", "negative"])
def test_the_pid_file_of_no_process_is_removed(
    engine: Engine, runner: FakeRunner, pid_file: Path, content: str
) -> None:
    pid_file.write_text(content)

    assert removed(engine, runner, pid_file)


def test_without_a_pid_file_nothing_is_in_the_way(engine: Engine, runner: FakeRunner, pid_file: Path) -> None:
    runner.on("rm -f")
    engine._remove_stale_pid()

    assert not pid_file.exists()


# -- one engine: the one that the client speaks to --------------------------------------------------------------------


@pytest.fixture
def chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Chooses a context, as `docker context use` does."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return lambda name: (tmp_path / "config.json").write_text(json.dumps({"currentContext": name})) and None


@pytest.mark.parametrize("by", ["config", "environment"])
def test_terraform_is_told_of_the_engine_of_the_context(
    engine: Engine,
    runner: FakeRunner,
    debian: None,
    chosen: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    by: str,
) -> None:
    chosen("other" if by == "config" else "default")
    if by == "environment":
        monkeypatch.setenv("DOCKER_CONTEXT", "other")
    runner.on("docker version", "28.1.0\n").on("docker info", json.dumps(INFO))
    runner.on("docker context inspect other", "unix:///run/other.sock\n")

    assert engine.ensure() == "cached"
    assert os.environ["DOCKER_HOST"] == "unix:///run/other.sock"


def test_the_default_context_is_nobodys_choice(
    engine: Engine, runner: FakeRunner, debian: None, chosen: Callable[[str], None]
) -> None:
    chosen("default")
    runner.on("docker version", "28.1.0\n").on("docker info", json.dumps(INFO))

    assert engine.ensure() == "cached"
    assert "DOCKER_HOST" not in os.environ


def test_a_context_that_is_gone_is_told_in_the_clients_words(
    engine: Engine, silent: FakeRunner, chosen: Callable[[str], None]
) -> None:
    chosen("gone")
    silent.on("docker context inspect gone", status=1, stderr='context "gone": context not found\n')

    with pytest.raises(Misconfigured, match=r'the context gone of Docker cannot be used: context "gone": context not'):
        engine.ensure()


def test_no_engine_is_started_for_a_context_of_another_socket(
    engine: Engine, silent: FakeRunner, chosen: Callable[[str], None]
) -> None:
    chosen("other")
    silent.on("docker context inspect other", "unix:///run/other.sock\n")

    with pytest.raises(Misconfigured, match=r"DOCKER_HOST is unix:///run/other.sock, and no engine answers there"):
        engine.ensure()
    assert [call for call in changes(silent) if "context" not in call] == []


@pytest.mark.parametrize("host", ["ssh://core@example", "tcp://192.0.2.9:2376", "example:2375", "npipe:////./pipe/x"])
def test_an_engine_on_another_machine_is_refused_without_asking_it(
    engine: Engine, silent: FakeRunner, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)

    with pytest.raises(Misconfigured, match=r"no engine answers there that is on this machine") as refused:
        engine.ensure()
    assert (silent.calls, len(str(refused.value).splitlines())) == ([], 1)


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:2375", "tcp://[::1]:2375", "localhost:2375", "unix:///run/x.sock"])
def test_an_engine_of_this_machine_is_taken_however_it_is_named(
    engine: Engine, runner: FakeRunner, debian: None, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    runner.on("docker version", "28.1.0\n").on("docker info", json.dumps(INFO))

    assert engine.ensure() == "cached"


TOO_OLD = "Error response from daemon: client version 1.41 is too old. Minimum supported API version is 1.44"


def test_a_client_that_the_engine_refuses_is_told_and_none_is_started(engine: Engine, silent: FakeRunner) -> None:
    silent.on("docker version", status=1, stderr=f"{TOO_OLD}\n")

    with pytest.raises(Misconfigured, match=r"client version 1.41 is too old"):
        engine.ensure()
    assert changes(silent) == []


@pytest.mark.parametrize(
    "says",
    [
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct and if the "
        "daemon is running: dial unix /var/run/docker.sock: connect: no such file or directory",
    ],
    ids=["20 to 28", "29"],
)
def test_where_none_listens_one_is_started_whatever_the_client_calls_it(
    engine: Engine, silent: FakeRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str
) -> None:
    monkeypatch.setattr(engine_module, "PID_FILE", tmp_path / "docker.pid")
    silent.on("docker version", status=1, stderr=says)

    assert engine.ensure() == "done"


def test_an_engine_that_refuses_while_it_starts_is_waited_for(
    engine: Engine, silent: FakeRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine_module, "PID_FILE", tmp_path / "docker.pid")

    def start() -> None:
        silent.on("docker version", "28.1.0\n")
        silent.on("docker version", status=1, stderr="Error response from daemon: starting")
        silent.answers[0] = dataclasses.replace(silent.answers[0], does=lambda: silent.answers.pop(0))

    silent.on("systemctl start docker", does=start).on("sh -c", does=start)

    assert engine.ensure() == "done"
