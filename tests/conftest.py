"""What several test files need: a record of their own, and a way to read it."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from harness.record.log import Recorder, Redactor, read_events
from tests.fakes import FakeClock, FakeRunner

# how long an example takes says something of this machine, and nothing of what is tested; of what all of the tests may
# take, one minute, these have a part (`--hypothesis-profile=default` tries more)
settings.register_profile("platform", deadline=None, max_examples=40)
settings.load_profile("platform")
# tests send it; a shell without job control has what it starts in the background ignore it
signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(autouse=True)
def no_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks a real name server."""
    real = socket.getaddrinfo

    def numeric_only(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        assert name is None or name == "localhost" or re.fullmatch(r"[0-9.]*|[0-9a-f:]+", name), f"{name} was looked up"
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", numeric_only)
