"""What pytest-bdd does, written into the record: small features of this file, executed by a pytest of their own with
the real composition root, and no cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness.record.log import read_events

ROOT = Path(__file__).resolve().parent.parent.parent.parent
# a step whose undoing fails, as a put-back does when what it puts back is gone
STEPS = """
import pytest
from pytest_bdd import scenarios, when, then
from harness.errors import PlatformWrong

scenarios(".")

@pytest.fixture
def undone():
    yield
    raise PlatformWrong("coreos-1 cannot be switched on again")

@when("something is broken that stays broken")
def broken(undone): ...

@when("something is changed")
def changed(): ...

@then("all is well")
def well(): ...
"""


def outcomes(folder: Path, feature: str, *options: str) -> dict[str, tuple[str, str]]:
    """Title -> outcome and reason of each scenario."""
    (folder / "run").mkdir()
    (folder / "some.feature").write_text(feature)
    (folder / "test_some.py").write_text(STEPS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  mutates\n  destructive\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PLATFORM_", "PYTEST_"))}
    environment |= {"PLATFORM_FOLDER": str(folder / "run"), "PLATFORM_WORKPLACE": str(folder), "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "conftest", "-q", *options]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True)
    events = list(read_events(folder / "run/events.jsonl"))
    assert events, done.stdout + done.stderr
    titles = {event["id"]: event["title"] for event in events if event["kind"] == "scenario.planned"}
    return {
        titles[event["id"]]: (event["outcome"], event["reason"])
        for event in events
        if event["kind"] == "scenario.ended"
    }


def test_what_could_not_be_put_back_stops_what_stands_on_it(tmp_path: Path) -> None:
    feature = """Feature: 1. Breaking
      @destructive
      Scenario: Broken
        When something is broken that stays broken
      Scenario: Next
        Then all is well
    """

    assert outcomes(tmp_path, feature) == {
        "Broken": ("error", "coreos-1 cannot be switched on again"),
        "Next": ("not_run", 'stands on "Broken", which failed'),
    }
