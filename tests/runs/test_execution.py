"""What is written of a run when it ends: the document, the report with the looks that it draws, and JUnit."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.record.log import Recorder
from harness.runs.execution import write_record
from harness.runs.watch import Watch, snapshot_file
from harness.snapshot.data import encode
from tests.transcripts.snapshots import green, later

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's, with a look that showed something wrong, and the last one."""
    recorder = Recorder(tmp_path / "events.jsonl")
    recorder.emit("run.started", run_id="r1", target="local", command=[], folder=str(tmp_path), readme=[])
    watch = Watch(lambda: pytest.fail("nobody looks"), recorder, tmp_path)
    for look in (later(green(), 1), later(later(green(), 1), 1)):
        watch.record(look)
    recorder.emit("causes", look=1, causes=[])
    recorder.emit("run.ended", status=1, headline="The platform is wrong")
    return tmp_path


def report(folder: Path) -> str:
    write_record(folder)
    assert (folder / "run.json").is_file() and (folder / "junit.xml").is_file()
    return (folder / "report.html").read_text()


def test_report_draws_the_looks_that_are_on_record(folder: Path) -> None:
    text = report(folder)

    assert "Look 1, where the causes were found" in text and "Look 2, the last look of the run" in text
    assert text.count("The ways to blog") == 2 and "no drawing" not in text


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (Path.unlink, "its snapshot is not on record"),
        (lambda path: path.write_bytes(path.read_bytes()[:9999]), "its snapshot cannot be read"),
        (lambda path: path.write_bytes(b"\x00\xff"), "its snapshot cannot be read"),
        (lambda path: path.write_text('{"schema": "platform.snapshot/2"}'), "not platform.snapshot/1"),
        (lambda path: path.unlink() or path.mkdir(), "its snapshot cannot be read"),
    ],
)
def test_a_snapshot_that_is_not_what_it_was_costs_its_drawing_only(
    folder: Path, damage: Callable[[Path], Any], why: str
) -> None:
    damage(snapshot_file(folder, 1))
    text = report(folder)

    assert why in text and text.count("no drawing") == 1
    assert text.count("The ways to blog") == 1


def test_what_else_a_snapshot_may_hold_costs_nothing(folder: Path) -> None:
    """A masked snapshot is one still."""
    path = snapshot_file(folder, 1)
    path.write_bytes(encode(green()).replace(b"coreos-2", b"[a secret]"))

    assert "[a secret]" in report(folder)


def test_the_last_look_is_recorded_when_pytest_ends(
    request: pytest.FixtureRequest, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root: Any = request.config.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    monkeypatch.setenv("PLATFORM_FOLDER", str(tmp_path))
    fixture = inspect.unwrap(root.watch)(recorder, SimpleNamespace(typed=[]), tmp_path, *[None] * 4)
    watch = next(fixture)
    watch._newest = green()

    assert list(fixture) == []
    assert snapshot_file(tmp_path, green().number).is_file()
