"""What the tests of set-up share: a machine that lacks things, and what is asked to bring them."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.record.log import Recorder
from harness.seams.wait import Waiter
from harness.setup import toolchain as toolchain_module
from harness.setup.engine import Engine
from harness.setup.packages import Packages
from tests.engines import INFO
from tests.fakes import FakeClock, FakeRunner

Programs = Callable[..., Path]


@pytest.fixture
def locks_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks that all runs of a machine share lie with its temporary files: a run that goes on beside keeps its own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


@pytest.fixture
def waiter(recorder: Recorder, clock: FakeClock) -> Waiter:
    return Waiter(recorder, clock, every=10)


@pytest.fixture
def packages(runner: FakeRunner) -> Packages:
    return Packages(runner)


@pytest.fixture
def engine(runner: FakeRunner, recorder: Recorder, waiter: Waiter, packages: Packages) -> Engine:
    return Engine(runner, recorder, waiter, packages)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Makes PATH a folder with nothing but these programs, which must never be started. apt takes Debian's packages."""
    folder = tmp_path / "only"
    folder.mkdir()
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted/debian-archive-keyring.gpg").touch()
    monkeypatch.setattr(toolchain_module, "APT_TRUSTS", tmp_path / "trusted")
    monkeypatch.setattr(toolchain_module, "DEBIAN_KEYRING", tmp_path / "trusted/debian-archive-keyring.gpg")
    monkeypatch.setenv("PATH", str(folder))

    def make(*names: str) -> Path:
        for name in names:
            (folder / name).write_text("#!/bin/sh\nexit 99\n")
            (folder / name).chmod(0o755)
        return folder

    return make


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
