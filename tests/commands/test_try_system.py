"""A bare system of its own: what is refused before anything is made. The rest is tried by trying it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.commands import try_system as module
from harness.commands.try_system import Outcome, try_system
from harness.errors import EnvironmentFailed, Misconfigured

MAKE = module._make


@pytest.fixture(autouse=True)
def nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*arguments: object) -> None:
        raise AssertionError("nothing is to be made")

    monkeypatch.setattr(module, "_make", made)
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("suite", ["", "Trixie", "debian 13", "--help", "../trixie", "13"])
def test_what_is_no_suite_is_refused(tmp_path: Path, suite: str) -> None:
    with pytest.raises(Misconfigured, match="is no suite of Debian or Ubuntu"):
        try_system(tmp_path, suite)


def test_without_root_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Misconfigured, match="needs root"):
        try_system(tmp_path, "trixie")


def test_without_namespaces_it_is_refused_with_the_kernels_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "unshare: unshare failed: Operation not permitted\n")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(subprocess, "run", lambda argv, **options: failed)
    with pytest.raises(Misconfigured, match=r"cannot be had: unshare: .*: Operation not permitted$"):
        try_system(tmp_path, "trixie")


def test_a_system_that_cannot_be_made_is_not_the_platforms_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "mmdebstrap"
    program.write_text("#!/bin/sh\necho 'E: no such suite' >&2\nexit 25\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(module, "_install_missing", lambda packages: None)

    with pytest.raises(EnvironmentFailed, match=r"^a bare foo cannot be made .* ended with 25: E: no such suite$"):
        MAKE(tmp_path, "foo", tmp_path / "system")


@pytest.mark.parametrize(
    ("said", "summed_up"),
    [
        (["Verified: ...", "  scenarios  49 passed", "", "  report     .runs/x/report.html"], "49 passed"),
        (
            ["FAILED tests/test_a.py", "=== 7 failed, 3258 passed in 61.03s (0:01:01) ===", "make: *** 1"],
            "7 failed, 3258 passed",
        ),
        (["3315 passed in 34.14s"], "3315 passed"),
        (["platform: root is needed"], "platform: root is needed"),
        ([], "said nothing"),
    ],
)
def test_what_a_command_said_is_summed_up(said: list[str], summed_up: str) -> None:
    assert module._summed_up(said) == summed_up


def test_an_outcome_is_told_in_a_few_words() -> None:
    assert str(Outcome("make test", 0, 41.7, "3315 passed")) == "`make test` 3315 passed in 42 s"
    assert str(Outcome("make test", 2, 41.7, "1 failed")) == "`make test` 1 failed in 42 s (exit status 2)"
