"""What several test files need: a record of their own, and a way to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.record import Recorder, Redactor, read_events
from tests.fakes import FakeClock, FakeRunner


@pytest.fixture
def redact() -> Redactor:
    """The redactor of `recorder`, which knows no secrets yet."""
    return Redactor()


@pytest.fixture
def recorder(tmp_path: Path, redact: Redactor) -> Iterator[Recorder]:
    recorder = Recorder(tmp_path / "events.jsonl", redact)
    yield recorder
    recorder.close()


@pytest.fixture
def events(recorder: Recorder) -> Callable[..., list[dict[str, Any]]]:
    """What is in the record so far: all of it, or the events of the given kinds."""

    def read(*kinds: str) -> list[dict[str, Any]]:
        return [event for event in read_events(recorder.path) if not kinds or event["kind"] in kinds]

    return read


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
