"""Evidence: what is collected of every machine, and what their journals say around a moment."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import EnvironmentFailed, Misconfigured
from harness.record.log import Recorder, Redactor
from harness.runs import evidence as module
from harness.runs.evidence import LINES, collect, journal_around
from harness.seams.ssh import MachineUnreachable
from tests.fakes import FakeRunner
from tests.places import program
from tests.transcripts.machines import NAMES, FolderMachines

Events = Callable[..., list[dict[str, Any]]]
SILENT = MachineUnreachable("machine coreos-1 does not answer over SSH: timed out")
CONSOLE = ["docker", "exec", "platform-{run_id}-{machine}", "sh", "-c", "{command}"]


# -- collect ---------------------------------------------------------------------------------------------------------

ASKED = {"first": "echo of $(basename $PWD)", "fails": "echo half; exit 3", "last": "echo '@@ told'"}


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderMachines:
    """Machines that are folders: what they are asked runs for real."""
    program(tmp_path, "sudo", '#!/bin/sh\nexec "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(module, "QUESTIONS", ASKED)
    return FolderMachines(tmp_path / "machines")


@pytest.fixture
def collected(
    machines: FolderMachines, tmp_path: Path, recorder: Recorder, runner: FakeRunner
) -> Callable[..., dict[str, str]]:
    """Collects; gives MACHINE/QUESTION -> what is in its file."""

    def collect_all(console: list[str] = CONSOLE, silent: tuple[str, ...] = (), within: float = 20.0) -> dict[str, str]:
        folder = tmp_path / "evidence"
        collect(machines, folder, recorder, runner, console, "run-1", silent, within)
        return {f"{file.parent.name}/{file.stem}": file.read_text() for file in folder.glob("*/*.txt")}

    return collect_all


def falls_silent(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """These machines do not answer; gives all that are asked."""
    asked, run = [], FolderMachines.run

    def answer(machines: FolderMachines, name: str, command: str, **more: Any) -> str:
        asked.append(name)
        if name in names:
            raise SILENT
        return run(machines, name, command, **more)

    monkeypatch.setattr(FolderMachines, "run", answer)
    return asked


def test_every_machine_is_asked_every_question_by_one_command(
    collected: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    asked = falls_silent(monkeypatch)
    files = collected()

    assert sorted(asked) == sorted(NAMES)
    assert sorted(files) == sorted(f"{name}/{question}" for name in NAMES for question in ASKED)
    assert files["coreos-2/fails"] == "$ echo half; exit 3\nhalf\n"
    assert files["coreos-2/last"] == "$ echo '@@ told'\n@@ told\n"
    assert sorted(Path(event["path"]).stem for event in events("artefact")) == sorted([*ASKED] * 3)
    assert all(Path(event["path"]).is_file() for event in events("artefact"))


def test_real_questions_are_a_script_that_a_shell_takes(tmp_path: Path) -> None:
    script = module._script(5)

    assert subprocess.run(["sh", "-n", "-c", script], check=False).returncode == 0
    assert [line.split()[1] for line in script.splitlines() if line.startswith("ask ")] == list(module.QUESTIONS)


def test_answer_that_does_not_end_is_cut_off_and_the_others_are_told(
    collected: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_LIMIT", 1)
    monkeypatch.setitem(ASKED, "first", "echo begun; sleep 30")
    files = collected()

    assert files["coreos-1/first"].endswith("begun\ncut off: no end within 1 s\n")
    assert files["coreos-1/last"].endswith("@@ told\n")


def test_what_is_left_when_the_time_is_over_is_said_to_be(
    collected: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_LIMIT", 2)
    monkeypatch.setitem(ASKED, "first", "sleep 1.2")
    files = collected(within=3.0)

    assert files["coreos-1/last"].endswith("left out: the time was over\n")


def test_machine_that_tells_nothing_in_time_is_not_waited_for(
    collected: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, run = threading.Event(), FolderMachines.run

    def slow(machines: FolderMachines, name: str, command: str, **more: Any) -> str:
        if name == "coreos-1":
            goes_on.wait(9)
            return ""
        return run(machines, name, command, **more)

    monkeypatch.setattr(FolderMachines, "run", slow)
    try:
        files = collected(within=1.0)
    finally:
        goes_on.set()
    assert files["coreos-1/silent"] == "machine coreos-1 did not tell all of it within 1 s\n"
    assert "coreos-1/first" not in files and "coreos-2/first" in files


def test_silent_machine_is_asked_at_its_console(
    collected: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch, runner: FakeRunner
) -> None:
    falls_silent(monkeypatch, "coreos-1")
    told = f"\n{module.MARK} first\nfrom within\n\n{module.MARK} last\n"
    runner.on("docker exec platform-run-1-coreos-1 sh -c", stdout=told, status=1)
    files = collected()

    assert files["coreos-1/silent"] == f"{SILENT}\n"
    assert files["coreos-1/first"] == f"$ {ASKED['first']}\nfrom within\n" and "coreos-0/first" in files
    (call,) = runner.details
    assert call.argv[:5] == ("docker", "exec", "platform-run-1-coreos-1", "sh", "-c")


def test_machine_that_is_known_to_be_silent_is_not_waited_for(
    collected: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch, runner: FakeRunner
) -> None:
    asked = falls_silent(monkeypatch)
    runner.on("docker exec", stdout=f"\n{module.MARK} first\nfrom within\n")
    files = collected(silent=("coreos-1",))

    assert sorted(asked) == ["coreos-0", "coreos-2"]
    assert files["coreos-1/silent"] == "machine coreos-1 does not answer over SSH\n"
    assert files["coreos-1/first"].endswith("from within\n")


@pytest.mark.parametrize("error", [Misconfigured("docker is not installed"), EnvironmentFailed("no engine")])
def test_console_that_fails_too_is_told(
    collected: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch, runner: FakeRunner, error: Exception
) -> None:
    falls_silent(monkeypatch, "coreos-1")
    runner.on("docker exec", raises=error)

    assert collected()["coreos-1/console"] == str(error)


def test_target_without_a_console(
    collected: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch, runner: FakeRunner
) -> None:
    falls_silent(monkeypatch, *NAMES)
    files = collected(console=[])

    assert {files[f"{name}/console"] for name in NAMES} == {"this target has no console"}
    assert runner.calls == []


def test_secrets_are_not_collected(
    collected: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    redact: Redactor,
    runner: FakeRunner,
) -> None:
    redact.add("host key", "very-secret-words")
    monkeypatch.setitem(ASKED, "first", "echo very-secret-words on disk; echo NAME_KEY=told-by-its-name")
    falls_silent(monkeypatch, "coreos-1")
    runner.on("docker exec", stdout=f"\n{module.MARK} last\nvery-secret-words at the console\n")
    files = collected()

    # its own question is ours to see
    assert not [name for name, text in files.items() if "very-secret-words" in text or "told-by-its-name" in text]
    assert "[host key] on disk\nNAME_KEY=[masked]\n" in files["coreos-0/first"]
    assert "[host key] at the console" in files["coreos-1/last"]


# -- the journals around a moment ------------------------------------------------------------------------------------

MOMENT = 1785585600.0
JOURNALCTL = r"""#!/bin/sh
for word in "$@"; do
    case "$word" in
        --since=@*) since=${word#--since=@};;
        --until=@*) until=${word#--until=@};;
    esac
done
awk -v since="$since" -v until="$until" '$1 + 0 < 1 || ($1 >= since && $1 <= until)' "$JOURNAL"
"""


class Journals(FolderMachines):
    """Machines whose journals are files: what asks for them runs for real, but for journalctl itself."""

    def write(self, name: str, *lines: tuple[float, str]) -> None:
        text = "".join(f"{MOMENT + seconds:f} {said}\n" for seconds, said in lines)
        (self.core(name) / "journal").write_text(text)

    def run(self, name: str, command: str, *, data: bytes = b"", ok: Iterable[int] = (0,), kept: int = 0) -> str:
        return super().run(name, f"export JOURNAL={self.core(name)}/journal\n{command}", data=data, ok=ok)


@pytest.fixture
def journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journals:
    program(tmp_path, "sudo", '#!/bin/sh\nexec "$@"\n')
    program(tmp_path, "journalctl", JOURNALCTL)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    journals = Journals(tmp_path / "machines")
    for name in NAMES:
        journals.write(name)
    return journals


def said(journals: Journals, moment: float = MOMENT) -> list[tuple[str, float, str]]:
    return [(it["machine"], round(it["time"] - MOMENT, 3), it["text"]) for it in journal_around(journals, moment)]


def test_journals_of_all_machines_are_one_in_the_order_of_time(journals: Journals) -> None:
    journals.write("coreos-0", (-0.5, "systemd[1]: Stopping etcd"), (2.25, "fleetd[9]: lost"))
    journals.write("coreos-2", (-1, "etcd[7]: slow"), (0.125, "etcd[7]: no space left"))

    assert said(journals) == [
        ("coreos-2", -1.0, "etcd[7]: slow"),
        ("coreos-0", -0.5, "systemd[1]: Stopping etcd"),
        ("coreos-2", 0.125, "etcd[7]: no space left"),
        ("coreos-0", 2.25, "fleetd[9]: lost"),
    ]


def test_only_the_seconds_around_the_moment_count(journals: Journals) -> None:
    journals.write("coreos-0", *[(float(at), f"{at}") for at in range(-30, 31)])

    assert [text for _, _, text in said(journals)] == [str(at) for at in range(-5, 6)]


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.7])
def test_of_a_machine_that_says_much_the_lines_nearest_to_the_moment_count(journals: Journals, fraction: float) -> None:
    """What comes later says what follows, and more of it."""
    journals.write("coreos-1", *[(at / 100, f"{at}") for at in range(-400, 400)])

    at = [int(text) for _, _, text in said(journals, MOMENT + fraction)]
    nearest = sorted(range(-400, 400), key=lambda it: abs(it / 100 - fraction))[:LINES]
    assert at == sorted(at) and len(at) == LINES
    assert abs(min(at) - min(nearest)) <= 1 and abs(max(at) - max(nearest)) <= 1


def test_who_looks_says_nothing_of_what_is_wrong(journals: Journals) -> None:
    noise = [
        "sudo[5]: core : COMMAND=/usr/bin/journalctl", "sshd[3]: Accepted publickey for core",
        "systemd-logind[2]: New session 7", 'blog[4]: 192.0.2.1 "GET /version.txt HTTP/1.1" 200',
    ]  # fmt: skip
    journals.write("coreos-0", *[(0.1, text) for text in noise], (0.2, "etcd[7]: no space left"))

    assert [text for _, _, text in said(journals)] == ["etcd[7]: no space left"]


def test_a_line_has_an_end_and_what_continues_one_is_passed_over(journals: Journals) -> None:
    journals.write("coreos-0", (0, "etcd[7]: " + "x" * 5000))
    with (journals.core("coreos-0") / "journal").open("a") as file:
        file.write("                  second line of the message\n")

    ((_, _, text),) = said(journals)
    assert 200 < len(text) < 300


def test_of_a_silent_machine_there_are_no_lines(journals: Journals) -> None:
    def silent(name: str, command: str) -> None:
        if name == "coreos-1":
            raise SILENT

    journals.before = silent
    for name in NAMES:
        journals.write(name, (0, "said"))

    assert [name for name, _, _ in said(journals)] == ["coreos-0", "coreos-2"]
    journals.before = lambda name, command: pytest.fail("asked") if name == "coreos-2" else None
    assert [it["machine"] for it in journal_around(journals, MOMENT, ("coreos-2",))] == ["coreos-0", "coreos-1"]


def test_journals_without_a_line_are_none(journals: Journals) -> None:
    assert journal_around(journals, MOMENT) == []
