"""Signals that ask a run to end, and terminals that go away: the first interrupts, nothing stops what is removed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.runs.interrupts import SIGNALS, Interrupts

ROOT = Path(__file__).resolve().parent.parent.parent


def hit(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0)  # where the handler is called


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_interrupts_and_later_ones_are_answered(number: int) -> None:
    answers: list[str] = []
    with Interrupts(lambda: answers.append("a moment")) as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            try:
                hit(number)
            finally:  # what is ended here, pytest for one, is not left half-ended by a second Ctrl-C
                for again in SIGNALS:
                    hit(again)
        assert answers == ["a moment"] * 3
        hit(number)
    assert len(answers) == 4


def test_outside_of_what_may_be_interrupted_a_signal_is_answered() -> None:
    answers: list[int] = []
    with Interrupts(lambda: answers.append(1)) as interrupts:
        hit()
        with interrupts.allowed():
            pass
        hit()

    assert answers == [1, 1]


def test_a_signal_waits_until_what_is_started_is_in_somebodys_hands() -> None:
    answers: list[str] = []
    started = []
    with Interrupts(lambda: answers.append("a moment")) as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.allowed(), Interrupts.held():
            hit()
            hit(signal.SIGTERM)
            started.append("pytest")
        hit()

    assert started == ["pytest"]
    assert answers == ["a moment"]


def test_without_anybody_who_handles_signals_nothing_is_held() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts.held():
        hit()
        time.sleep(1)


def test_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ValueError, match="what"), Interrupts():
        raise ValueError("what")

    assert [signal.getsignal(number) for number in SIGNALS] == before


# What a run does at its end: it says things by every way there is, and then writes that it came to its end
ENDS = """
import os, signal, sys
from pathlib import Path
from rich.console import Console
from harness.runs.interrupts import Interrupts, outlive_the_terminal

outlive_the_terminal()
console = Console(stderr=True)
with Interrupts(lambda: console.print("a moment")) as interrupts:
    try:
        with interrupts.allowed():
            print("up", flush=True)
            signal.pause() if sys.argv[2] == "terminal" else sys.stdin.read()
    except KeyboardInterrupt:
        pass
    finally:
        for _ in range(3):
            print("removing what was made", file=sys.stderr)
            console.print("removing")
            print("removing", flush=True)
            os.kill(os.getpid(), signal.SIGINT)
        Path(sys.argv[1]).write_text("removed")
print("x" * 100_000)
"""


def test_who_reads_may_go_away_before_the_end(tmp_path: Path) -> None:
    """`make acceptance 2>&1 | tee log`, and Ctrl-C ends tee too."""
    argv = [sys.executable, "-c", ENDS, str(tmp_path / "end"), "pipe"]
    process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.stdout.close()
    process.stdin.close()

    assert process.wait(10) == 0
    assert (tmp_path / "end").read_text() == "removed"


def test_the_terminal_may_be_closed_before_the_end(tmp_path: Path) -> None:
    """Its kernel sends SIGHUP, and writing to it is an error from then on."""
    terminal, inside = pty.openpty()
    argv = ["setsid", "--ctty", sys.executable, "-c", ENDS, str(tmp_path / "end"), "terminal"]
    process = subprocess.Popen(argv, cwd=ROOT, stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)
    assert os.read(terminal, 100).startswith(b"up")
    os.close(terminal)

    assert process.wait(10) == 0
    assert (tmp_path / "end").read_text() == "removed"
