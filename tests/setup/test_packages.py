"""System packages: those that are missing are installed by one run at a time, or it is said who has to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import Misconfigured
from harness.setup.packages import Packages
from tests.engines import locked
from tests.fakes import FakeRunner

Programs = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("locks_of_this_machine")


def test_a_missing_package_without_apt_is_the_persons_to_install(
    packages: Packages, runner: FakeRunner, programs: Programs
) -> None:
    with pytest.raises(Misconfigured, match="mmdebstrap and git is missing, and there is no apt-get: install it"):
        packages.install(["mmdebstrap", "git"])

    assert runner.calls == []


def test_packages_are_installed_by_one_run_at_a_time(
    packages: Packages, runner: FakeRunner, programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs("apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    held: list[bool] = []
    runner.on("env DEBIAN_FRONTEND", does=lambda: held.append(locked("packages", tmp_path / "tmp")))

    assert packages.install(["mmdebstrap"]) == "done"
    assert held == [True, True]
