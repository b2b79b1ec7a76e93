"""The project's own checks: its tests, and what linters and type checkers find."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.commands.prepared import prepared
from harness.errors import ExitStatus
from harness.setup.limits import processors
from harness.setup.toolchain import FOR_TESTS

# many tests wait for programs and limits: more of them at once than there are cores
SIDE_BY_SIDE = ("--numprocesses", str(2 * processors()), "--dist", "worksteal")


def test(root: Path, selection: Sequence[str]) -> int:
    """Runs the tests that are selected in pytest's own words (all, if none is); the exit status."""
    with prepared(root, FOR_TESTS) as toolchain:
        environment = toolchain.environment_of_tests()
    # for a few, workers cost more than they give
    chosen = selection if _names_tests(root, selection) else [*selection, *SIDE_BY_SIDE, "tests"]
    done = subprocess.run([sys.executable, "-m", "pytest", *chosen], cwd=root, env=environment)
    return pytest_status(done.returncode)


def _names_tests(root: Path, selection: Sequence[str]) -> bool:
    return any((root / word.partition("::")[0]).exists() for word in selection)


def pytest_status(status: int) -> int:
    """pytest's exit status in our terms: its 1 is ours, its 5 is that nothing ran."""
    known = {0: ExitStatus.VERIFIED, 1: ExitStatus.PLATFORM_WRONG, 2: ExitStatus.INTERRUPTED}
    known |= {4: ExitStatus.MISCONFIGURED, 5: ExitStatus.NOTHING_VERIFIED}
    return known.get(status, ExitStatus.INTERNAL_ERROR)


def lint(root: Path) -> int:
    """Runs every linter and type checker, and names those that found problems; the exit status."""
    with prepared(root, FOR_TESTS) as toolchain:
        environment = toolchain.environment_of_tests()
    scripts = shell_scripts(root)
    checks = [
        [sys.executable, "-m", "ruff", "check"],
        [sys.executable, "-m", "ruff", "format", "--check"],
        [sys.executable, "-m", "mypy"],
        [str(Path(sys.executable).with_name("shellcheck")), "--severity=warning", *scripts],
        ["terraform", "fmt", "-check", "-recursive", "infra"],
    ]
    failed = [check for check in checks if subprocess.run(check, cwd=root, env=environment).returncode != 0]
    for check in failed:
        print(f"platform: lint: {Path(check[0]).name} {' '.join(check[1:4])} found problems", file=sys.stderr)
    return ExitStatus.PLATFORM_WRONG if failed else ExitStatus.VERIFIED


def shell_scripts(root: Path) -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True).stdout
    files = [name for name in listed.split("\0") if name and (root / name).is_file()]
    return [name for name in files if (root / name).read_bytes().startswith((b"#!/bin/sh", b"#!/usr/bin/env bash"))]
