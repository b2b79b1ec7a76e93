"""An acceptance run as a whole, with a set-up that ends badly: it always ends with the teardown and a record."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.acceptance import Acceptance
from harness.errors import EnvironmentFailed, ExitStatus
from harness.toolchain import Toolchain


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Acceptance:
    (tmp_path / "README.md").write_text("## Operation\n\n```\n$ true\n```\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tmp_path / "bin/docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return Acceptance(tmp_path, "local", ["acceptance"])


def test_an_interrupted_set_up_is_torn_down_and_recorded(
    run: Acceptance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(toolchain: Toolchain, tasks: object) -> None:
        toolchain.end_commands()
        raise KeyboardInterrupt

    monkeypatch.setattr(Toolchain, "prepare", interrupted)

    assert run() == ExitStatus.INTERRUPTED
    assert "platform.run=" in (tmp_path / "asked").read_text()
    assert json.loads((run.run.folder / "run.json").read_text())["status"] == 2
    assert (run.run.folder / "report.html").exists()


def test_a_failed_set_up_is_torn_down_and_recorded(
    run: Acceptance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(toolchain: Toolchain, tasks: object) -> None:
        raise EnvironmentFailed("no network")

    monkeypatch.setattr(Toolchain, "prepare", failed)

    assert run() == ExitStatus.ENVIRONMENT_FAILED
    assert "platform.run=" in (tmp_path / "asked").read_text()
    assert json.loads((run.run.folder / "run.json").read_text())["stages"][0]["error"] == "no network"
