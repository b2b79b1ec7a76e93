"""A deployment that is under way: how far it came, how it ends, and that it can be killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.drivers.contents import Contents, Deployed
from harness.drivers.deploying import DeploymentUnderWay, Reached
from harness.drivers.shell import OperatorShell
from harness.record.log import Recorder
from harness.seams.process import Processes
from tests.transcripts.machines import NAMES, FolderMachines


class Remembering(FolderMachines):
    """Folders, and an etcd that says this version."""

    version = "old"

    def run(self, name: str, command: str, **options: object) -> str:
        if "v2/keys" in command:
            return f'{{"node": {{"value": "{self.version} f00"}}}}'
        return super().run(name, command, **options)  # type: ignore[arg-type]


@pytest.fixture
def machines(tmp_path: Path) -> Remembering:
    machines = Remembering(tmp_path / "machines")
    for name in NAMES:
        release(machines, name, "old")
        switch(machines, name, "old")
    return machines


def release(machines: FolderMachines, name: str, version: str) -> None:
    (machines.core(name) / "blog/releases" / version).mkdir(parents=True)


def switch(machines: FolderMachines, name: str, version: str) -> None:
    current = machines.core(name) / "blog/current"
    current.unlink(missing_ok=True)
    current.symlink_to(f"releases/{version}")


@pytest.fixture
def begin(machines: Remembering, tmp_path: Path, recorder: Recorder) -> Iterator[Callable[[str], DeploymentUnderWay]]:
    """Begins a deployment that is this script."""
    begun: list[DeploymentUnderWay] = []
    processes = Processes(recorder)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/deploy-blog"

    def begin(script: str) -> DeploymentUnderWay:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        shell = OperatorShell.open(processes, tmp_path / "shell", tmp_path, {"PATH": "/usr/bin:/bin"})
        begun.append(DeploymentUnderWay(processes, shell, machines, "blog", tmp_path / "pid"))
        return begun[-1]

    yield begin
    for under_way in begun:
        under_way.kill()


def test_how_far_it_came(begin: Callable[[str], DeploymentUnderWay], machines: Remembering) -> None:
    under_way = begin("exec sleep 60")
    assert under_way.reached() == Reached(unpacked=0, known=False, switched=0)

    (machines.core("coreos-0") / "blog/releases/new.partial").mkdir()
    release(machines, "coreos-1", "new")
    assert under_way.reached() == Reached(unpacked=1, known=False, switched=0)

    release(machines, "coreos-0", "new")
    release(machines, "coreos-2", "new")
    machines.version = "new"
    switch(machines, "coreos-2", "new")
    assert under_way.reached() == Reached(unpacked=3, known=True, switched=1)


def test_a_machine_without_the_site_holds_nothing_of_it(machines: Remembering) -> None:
    assert Contents(machines).releases("jpblog", "coreos-0") == ("", set())
    assert Contents(machines).releases("blog", "coreos-0") == ("old", {"old"})
    assert Contents(machines).deployed_last("blog") == Deployed("old", "f00")


def test_it_is_killed_without_a_word(begin: Callable[[str], DeploymentUnderWay], tmp_path: Path) -> None:
    under_way = begin(f"trap 'touch {tmp_path}/told' EXIT TERM INT; touch begun; sleep 60")
    until(lambda: (tmp_path / "begun").exists())
    assert under_way.ended() is None

    assert under_way.kill().status == -signal.SIGKILL
    assert not (tmp_path / "told").exists()
    ended = under_way.ended()
    assert ended is not None and ended.status == -signal.SIGKILL


def test_it_ends_by_itself(begin: Callable[[str], DeploymentUnderWay]) -> None:
    under_way = begin('echo "$@"; echo why >&2; exit 1')
    until(lambda: under_way.ended() is not None)

    ended = under_way.kill()
    assert (ended.status, ended.stdout, ended.stderr) == (1, "blog sites/blog\n", "why\n")


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)
