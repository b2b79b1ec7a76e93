"""Where names lead: dig's answers, from a dig on PATH that answers as the real one does."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.drivers.name_server import NameServer
from harness.errors import ExitStatus, Misconfigured, PlatformWrong
from harness.record.log import Recorder
from harness.seams.process import Processes
from harness.seams.wait import NotAnswering, NotYet
from tests.fakes import FakeRunner
from tests.places import program

NAME = "genkisugimoto.com"
SILENT = ";; communications error to 192.0.2.4#53: timed out\n"
Dig = Callable[..., NameServer]


@pytest.fixture
def dig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> Dig:
    """A name server of which dig says this, and ends with that status."""

    def put(stdout: str = "", stderr: str = "", status: int = 0) -> NameServer:
        said = f"printf %s {shlex.quote(stdout)}\nprintf %s {shlex.quote(stderr)} >&2\n"
        program(tmp_path, "dig", f"#!/bin/sh\n{said}exit {status}\n")
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
        return NameServer("192.0.2.4", Processes(recorder))

    return put


# what dig 9.18 prints when nobody answers, and when the port is closed
@pytest.mark.parametrize(
    "said",
    [
        f"{SILENT}{SILENT};; no servers could be reached\n",
        ";; communications error to 192.0.2.4#53: connection refused\n;; no servers could be reached\n",
    ],
)
def test_name_server_that_does_not_answer(dig: Dig, said: str) -> None:
    """A wait asks again; anything else takes it for a fault of the platform."""
    with pytest.raises(NotAnswering, match="ended with 9: ;; no servers could be reached") as raised:
        dig(said, status=9).lookup(NAME)

    wrong = raised.value
    assert wrong.status is ExitStatus.PLATFORM_WRONG and isinstance(wrong, NotYet)
    assert wrong.paste == f"dig +short +tcp +tries=2 +time=2 @192.0.2.4 {NAME} A"


def test_what_dig_objects_to_is_shown(dig: Dig) -> None:
    with pytest.raises(PlatformWrong) as raised:
        dig(stderr="dig: couldn't get address for '192.0.2.4': failure\n", status=10).lookup(NAME)

    assert raised.value.seen == "status 10: dig: couldn't get address for '192.0.2.4': failure"


def test_dig_that_is_not_installed_is_the_persons_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(Misconfigured, match="dig is not installed"):
        NameServer("192.0.2.4", Processes(recorder)).lookup(NAME)


def test_name_that_leads_to_several_is_wrong(dig: Dig) -> None:
    with pytest.raises(PlatformWrong, match=f"{NAME} has several addresses") as raised:
        dig("192.0.2.10\n192.0.2.11\n").lookup(NAME)

    assert (raised.value.expected, raised.value.seen) == ("one", "192.0.2.10, 192.0.2.11")


def test_answer_to_the_second_try_is_an_answer(dig: Dig) -> None:
    """dig tells of the first one in its output, and ends with 0: so it does for one lost packet."""
    assert dig(f"{SILENT}192.0.2.10\n").lookup(NAME) == "192.0.2.10"


@pytest.mark.parametrize("said", ["", "\n"])
def test_name_without_an_address(dig: Dig, said: str) -> None:
    assert dig(said).lookup(NAME) == ""


def test_name_with_one_address(dig: Dig) -> None:
    assert dig("192.0.2.10\n").lookup(NAME) == "192.0.2.10"


def test_the_clusters_own_name_server_is_asked_and_every_time(runner: FakeRunner) -> None:
    runner.on("dig", stdout="192.0.2.10\n")
    server = NameServer("192.0.2.4", runner)

    assert [server.lookup(NAME), server.lookup("jp.genkisugimoto.com")] == ["192.0.2.10"] * 2
    runner.on("dig", stdout="192.0.2.11\n")
    assert server.lookup(NAME) == "192.0.2.11"

    first, second, third = (call.argv for call in runner.details)
    assert first == third == ("dig", "+short", "+tcp", "+tries=2", "+time=2", "@192.0.2.4", NAME, "A")
    assert second[5:] == ("@192.0.2.4", "jp.genkisugimoto.com", "A")


def test_look_up_is_recorded(dig: Dig, events: Callable[..., list[dict[str, Any]]]) -> None:
    dig("192.0.2.10\n").lookup(NAME)

    assert [event["stdout"] for event in events("command.ended")] == ["192.0.2.10\n"]
