"""fleetctl in the operator's shell: what is asked, and which answers are the errors that they are to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.drivers.fleetctl import Fleetctl, fault
from harness.drivers.shell import OperatorShell
from harness.errors import CommandFailed, PlatformWrong
from harness.seams.process import Result
from tests.fakes import FakeRunner

NO_AGENT = "SSH_AUTH_SOCK environment variable is not set"
SAID = f"Unable to initialize client: failed initializing SSH client: {NO_AGENT}. Verify ssh-agent is running.\n"
PANIC = "panic: runtime error: invalid memory address or nil pointer dereference\n[signal SIGSEGV]\n\ngoroutine 1:\n"


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def fleetctl(runner: FakeRunner, tmp_path: Path) -> Fleetctl:
    environment = {"PATH": "/somewhere", "FLEETCTL_TUNNEL": "192.0.2.10"}
    return Fleetctl(runner, OperatorShell.open(runner, tmp_path / "state.json", tmp_path, environment))


def answer(status: int, stdout: str = "", stderr: str = "") -> Result:
    return Result(("fleetctl",), status, stdout, stderr, 0.1)


def test_a_unit_is_asked_for_as_the_operator_would(runner: FakeRunner, fleetctl: Fleetctl, tmp_path: Path) -> None:
    runner.on("fleetctl", status=1, stderr=SAID)

    answers = fleetctl.about("blog.service", 5)

    assert set(answers) == {"status blog.service", "journal --lines=1 blog.service", "ssh blog.service true"}
    assert {it.stderr for it in answers.values()} == {SAID}
    assert {f"fleetctl {words}" for words in answers} == set(runner.calls)
    for call in runner.details:
        assert (call.cwd, call.within, call.line) == (tmp_path, 5, None)  # it is no line of the runbook
        assert call.environment == {"PATH": "/somewhere", "FLEETCTL_TUNNEL": "192.0.2.10"}


def test_one_that_does_not_end_is_told(runner: FakeRunner, fleetctl: Fleetctl) -> None:
    runner.on("fleetctl").on("fleetctl ssh", raises=PlatformWrong("did not end within 5 s"))

    with pytest.raises(PlatformWrong, match="did not end"):
        fleetctl.about("blog.service", 5)


def test_units_that_fleet_holds(runner: FakeRunner, fleetctl: Fleetctl) -> None:
    runner.on("fleetctl list-unit-files --no-legend --fields=unit", "blog.service\nentry.service\n")

    assert fleetctl.units() == {"blog.service", "entry.service"}


def test_what_cannot_be_asked_or_done_is_told(runner: FakeRunner, fleetctl: Fleetctl) -> None:
    runner.on("fleetctl", status=1, stderr=SAID)

    with pytest.raises(CommandFailed, match="list-unit-files"):
        fleetctl.units()
    with pytest.raises(CommandFailed, match=r"destroy a\.service b\.service"):
        fleetctl.destroy("a.service", "b.service")


@pytest.mark.parametrize("status", [1, 2, 255])
def test_an_error_that_says_what_it_is_to_say(status: int) -> None:
    assert fault(answer(status, stderr=SAID), NO_AGENT) == ""
    assert fault(answer(status, stdout=SAID), NO_AGENT) == ""


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (answer(0, "active\n"), "status 0"),
        (answer(0, stderr=SAID), "status 0"),
        (answer(-11, stderr=SAID), "status -11"),
        (answer(1, stderr="host key mismatch\n"), "status 1, and it says: host key mismatch"),
        (answer(1), "status 1, and it says: "),
        (answer(2, stderr=SAID + PANIC), f"it crashed: {PANIC.splitlines()[0]}"),
        (answer(2, SAID, "[signal SIGSEGV: segmentation violation]"), "it crashed: [signal SIGSEGV: segmentation"),
    ],
)
def test_an_answer_that_is_not_that_error(seen: Result, said: str) -> None:
    assert fault(seen, NO_AGENT).startswith(said)
