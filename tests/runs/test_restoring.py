"""fleet's units are given back as their files say, when a scenario that changed them did not come to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.drivers.fleetctl import Fleetctl
from harness.drivers.shell import OperatorShell
from harness.record.log import Recorder, read_events
from harness.runs.restoring import restore
from harness.snapshot.data import FleetUnit, Snapshot
from tests.fakes import FakeRunner
from tests.transcripts.snapshots import REMOVED, changed, green

BLOG, SECOND = "fleet.units.blog.service", "fleet.units.blog@2.service"
RUNS = FleetUnit("launched", "launched", green().fleet.units["blog.service"].machine_id)  # type: ignore[union-attr]
PINNED = (("X-Fleet", "MachineMetadata", "name=coreos-0"),)
BEFORE = green()
GIVEN = "fleetctl start --no-block --replace units/app/blog.service"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The operator's, with the units' files."""
    for name in green().intended.units:
        file = tmp_path / "units" / ("app" if name in ("blog.service", "jpblog.service") else "") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path


def restored(runner: FakeRunner, folder: Path, changes: dict[str, Any], before: Snapshot | None = BEFORE) -> list[str]:
    """The notes of the record."""
    fleetctl = Fleetctl(runner, OperatorShell.open(runner, folder / "state.json", folder, {}))
    recorder = Recorder(folder / "events.jsonl")
    restore(changed(green(), changes), fleetctl, folder, recorder, before)
    recorder.close()
    return [event["text"] for event in read_events(folder / "events.jsonl") if event["kind"] == "note"]


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        pytest.param({}, [], id="as it is to be"),
        pytest.param({f"{BLOG}.desired": "loaded"}, [GIVEN], id="a blog is stopped"),
        pytest.param({BLOG: REMOVED}, [GIVEN], id="a blog is gone"),
        pytest.param({f"{BLOG}.options": PINNED}, [GIVEN], id="a blog is pinned"),
        pytest.param({SECOND: RUNS}, ["fleetctl destroy blog@2.service"], id="a blog is doubled"),
        pytest.param(
            {SECOND: RUNS, f"{BLOG}.desired": "loaded"}, ["fleetctl destroy blog@2.service", GIVEN], id="both"
        ),
        pytest.param({"fleet": None}, [], id="fleet does not tell"),
        pytest.param({BLOG: REMOVED, "intended.started": False}, [], id="nothing was started yet"),
    ],
)
def test_what_is_given_back(folder: Path, changes: dict[str, Any], asked: list[str]) -> None:
    runner = FakeRunner().on("fleetctl")
    notes = restored(runner, folder, changes)

    assert runner.calls == asked and len(notes) == len(asked)


@pytest.mark.parametrize(
    ("before", "destroyed"),
    [
        pytest.param(changed(BEFORE, {"fleet.units.my-database.service": RUNS}), ["blog@2.service"], id="one stood"),
        pytest.param(changed(BEFORE, {"fleet.units.my-database.service": RUNS, SECOND: RUNS}), [], id="both stood"),
        pytest.param(changed(BEFORE, {"fleet": None}), [], id="fleet did not tell"),
        pytest.param(None, [], id="nobody looked"),
    ],
)
def test_what_stood_before_the_scenario_stays(folder: Path, before: Snapshot | None, destroyed: list[str]) -> None:
    runner = FakeRunner().on("fleetctl")
    restored(runner, folder, {"fleet.units.my-database.service": RUNS, SECOND: RUNS}, before)

    assert runner.calls == [f"fleetctl destroy {name}" for name in destroyed]


def test_what_cannot_be_given_back_is_said(folder: Path) -> None:
    runner = FakeRunner().on("fleetctl", status=1, stderr="no machine answers")

    assert any("the units are not as they were: " in note for note in restored(runner, folder, {BLOG: REMOVED}))
