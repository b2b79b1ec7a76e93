"""A run: its name, its folder, and its record of stages and tasks, whatever fails in them."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import CommandFailed, EnvironmentFailed, HarnessError, Misconfigured
from harness.runs.run import Run, new_run_id, runs_folder
from tests.fakes import FakeRunner
from tests.places import RUN_ID, a_run, recorded


@pytest.fixture
def run(root: Path, runner: FakeRunner) -> Iterator[Run]:
    with a_run(root, runner) as run:
        yield run


# -- its folder ----------------------------------------------------------------------------------------------------


def test_a_run_folder_that_is_there_already_is_the_environments_failure(run: Run, root: Path) -> None:
    with pytest.raises(EnvironmentFailed, match="cannot be made: File exists"):
        Run(root, run.run_id)


def test_a_run_folder_that_cannot_be_made_is_the_environments_failure(root: Path) -> None:
    runs_folder(root).touch()

    with pytest.raises(EnvironmentFailed, match=rf"the run folder .*{RUN_ID} cannot be made"):
        Run(root, RUN_ID)


def test_a_disk_that_is_too_full_for_a_run_is_said_before_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.runs.run.RUN_BYTES", 2**60)

    with pytest.raises(EnvironmentFailed, match="are needed"):
        Run(root, RUN_ID)
    assert not (runs_folder(root) / RUN_ID).exists()


def test_a_full_disk_does_not_keep_a_run_from_being_removed(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.runs.run.RUN_BYTES", 2**60)

    Run(root, run.run_id, again=True).recorder.close()


def test_a_record_goes_on_where_it_ended(run: Run, root: Path) -> None:
    run.recorder.emit("note", text="before")
    before = run.recorder.path.read_bytes()
    again = Run(root, run.run_id, again=True)
    again.recorder.emit("note", text="after")
    again.recorder.close()

    assert (run.began_at, again.began_at) == (0, len(before))
    assert again.recorder.path.read_bytes().startswith(before)
    assert [event["text"] for event in recorded(run, "note")] == ["before", "after"]


def test_run_ids_are_of_one_zone_wherever_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a night's run in Tokyo is no later than that of the run of UTC after it."""
    moments = []
    for zone in ("Asia/Tokyo", "UTC", "America/New_York"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        moments.append(datetime.datetime.strptime(new_run_id()[:15], "%Y%m%d-%H%M%S"))
    monkeypatch.undo()
    time.tzset()

    assert moments == sorted(moments) and moments[-1] - moments[0] < datetime.timedelta(minutes=1)


def test_a_run_id_fits_the_names_of_all_that_is_made() -> None:
    found = {new_run_id() for _ in range(50)}

    assert len(found) > 45
    for run_id in found:
        assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", run_id)
        # Docker's rule for names, and what a hostname and the path of a socket may be long
        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", f"platform-{run_id}-coreos-99")
        assert len(f"platform-{run_id}-coreos-99") <= 63
        assert len(f"/tmp/platform-{run_id}-12345678/agent") < 108


# -- stages and tasks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome", "status"),
    [
        (EnvironmentFailed("no disk"), "failed", 6),
        (Misconfigured("no root"), "failed", 4),
        (CommandFailed(["x"], 1, "", ""), "failed", 1),
        (ValueError("what"), "failed", 3),
        (KeyboardInterrupt(), "interrupted", 3),
    ],
)
def test_a_stage_records_how_it_ended(run: Run, error: BaseException, outcome: str, status: int) -> None:
    with pytest.raises(type(error)), run.stage("setup"):
        raise error

    (ended,) = recorded(run, "stage.ended")
    assert (ended["stage"], ended["outcome"], ended["status"]) == ("setup", outcome, status)
    if isinstance(error, HarnessError):
        assert ended["error"] == str(error)


def test_a_full_disk_in_a_stage_is_the_environments_failure(run: Run) -> None:
    with pytest.raises(EnvironmentFailed, match=r"evidence: .*No space left on device"), run.stage("evidence"):
        raise OSError(28, "No space left on device")

    assert recorded(run, "stage.ended")[0]["status"] == 6


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EnvironmentFailed("the engine is gone"), "the engine is gone"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (subprocess.TimeoutExpired("x", 5), "Command 'x' timed out after 5 seconds"),
        (ValueError("what"), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_a_task_that_fails_is_recorded_and_its_error_comes_out(run: Run, error: BaseException, said: str) -> None:
    def fail(name: str) -> None:
        raise error

    with pytest.raises(type(error)):
        run.task("destroy", fail, "machines")

    (ended,) = recorded(run, "task.ended")
    assert (ended["task"], ended["outcome"], ended["error"]) == ("destroy", "failed", said)


def test_what_goes_well_is_recorded(run: Run) -> None:
    with run.stage("teardown"):
        run.task("note it", lambda text: run.recorder.emit("note", text=text), "done so")

    events = recorded(run, "stage.ended", "task.ended", "note")
    assert [event.get("outcome", event.get("text")) for event in events] == ["done so", "done", "passed"]
    assert json.loads(json.dumps(events)) == events
