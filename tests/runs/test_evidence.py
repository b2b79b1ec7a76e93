"""Evidence: what is collected of every machine, and what their journals say around a moment."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import EnvironmentFailed, Misconfigured
from harness.record.log import Recorder, Redactor
from harness.runs.evidence import LINES, QUESTIONS, collect, journal_around
from harness.seams.ssh import MachineUnreachable
from tests.fakes import FakeRunner
from tests.places import program
from tests.transcripts.machines import NAMES, FolderMachines, RecordedMachines

Events = Callable[..., list[dict[str, Any]]]
SILENT = MachineUnreachable("machine coreos-1 does not answer over SSH: timed out")
CONSOLE = ["docker", "exec", "platform-{run_id}-{machine}", "sh", "-c", "{command}"]


@pytest.fixture
def machines() -> RecordedMachines:
    """The recorded machines; each question is answered."""
    return RecordedMachines().on("sudo sh -c", "asked as root\n")


# -- collect ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def collected(
    machines: RecordedMachines, tmp_path: Path, recorder: Recorder, runner: FakeRunner
) -> Callable[..., dict[str, str]]:
    """Collects; gives MACHINE/QUESTION -> what is in its file."""

    def collect_all(console: list[str] = CONSOLE, silent: tuple[str, ...] = ()) -> dict[str, str]:
        folder = tmp_path / "evidence"
        collect(machines, folder, recorder, runner, console, "run-1", silent)
        return {f"{file.parent.name}/{file.stem}": file.read_text() for file in folder.glob("*/*.txt")}

    return collect_all


def test_every_machine_is_asked_every_question(collected: Callable[..., dict[str, str]], events: Events) -> None:
    files = collected()

    assert sorted(files) == sorted(f"{name}/{question}" for name in NAMES for question in QUESTIONS)
    assert {text.splitlines()[-1] for text in files.values()} == {"asked as root"}
    assert len(events("artefact")) == len(files)
    assert all(Path(event["path"]).is_file() for event in events("artefact"))


def test_file_begins_with_the_question(collected: Callable[..., dict[str, str]]) -> None:
    files = collected()

    assert all(files[f"coreos-2/{question}"].startswith(f"$ {QUESTIONS[question]}\n") for question in QUESTIONS)


def test_questions_are_put_to_root_in_one_word(collected: Callable[..., dict[str, str]], machines: Any) -> None:
    collected()

    asked = {command for _, command in machines.asked}
    assert len(asked) == len(QUESTIONS)
    assert all(command.startswith("sudo sh -c '") and command.endswith("' 2>&1") for command in asked)


def test_command_that_fails_is_an_answer(collected: Callable[..., dict[str, str]], machines: RecordedMachines) -> None:
    machines.fails("docker ps", 1, "Cannot connect to the Docker daemon", "coreos-0")

    assert "coreos-0/containers" in collected()


def test_silent_machine_is_asked_at_its_console(
    collected: Callable[..., dict[str, str]], machines: RecordedMachines, runner: FakeRunner
) -> None:
    machines.on("sudo sh -c", SILENT, "coreos-1")
    runner.on("docker exec platform-run-1-coreos-1 sh -c", stdout="from within\n", status=1)

    files = collected()

    assert "does not answer over SSH: timed out\n\nfrom the console:\nfrom within" in files["coreos-1/etcd"]
    assert {call.argv[:5] for call in runner.details} == {
        ("docker", "exec", "platform-run-1-coreos-1", "sh", "-c"),
    }
    assert {call.argv[5] for call in runner.details} == set(QUESTIONS.values())
    assert [name for name, _ in machines.asked].count("coreos-1") == 1
    assert files["coreos-0/etcd"].endswith("asked as root\n") and files["coreos-2/etcd"].endswith("asked as root\n")


def test_machine_that_falls_silent_is_asked_over_ssh_once_more_and_then_at_its_console_only(
    collected: Callable[..., dict[str, str]], machines: RecordedMachines, runner: FakeRunner
) -> None:
    """Each question would wait for its limit again, at the end of a run that failed."""
    silent_at = list(QUESTIONS)[2]
    machines.on(f"sudo sh -c {shlex.quote(QUESTIONS[silent_at])}", SILENT, "coreos-1")
    runner.on("docker exec", stdout="from within\n")

    files = collected()

    assert len([name for name, _ in machines.asked if name == "coreos-1"]) == 3
    assert len(runner.calls) == len(QUESTIONS) - 2
    over_ssh = {question for question in QUESTIONS if files[f"coreos-1/{question}"].endswith("asked as root\n")}
    assert over_ssh == set(list(QUESTIONS)[:2])
    assert all(str(SILENT) in files[f"coreos-1/{question}"] for question in set(QUESTIONS) - over_ssh)
    assert len([name for name, _ in machines.asked if name == "coreos-2"]) == len(QUESTIONS)


def test_machine_that_is_known_to_be_silent_is_not_waited_for(
    collected: Callable[..., dict[str, str]], machines: RecordedMachines, runner: FakeRunner
) -> None:
    runner.on("docker exec", stdout="from within\n")

    files = collected(silent=("coreos-1",))

    assert {name for name, _ in machines.asked} == {"coreos-0", "coreos-2"}
    assert files["coreos-1/etcd"].endswith(
        "machine coreos-1 does not answer over SSH\n\nfrom the console:\nfrom within\n"
    )


@pytest.mark.parametrize("error", [Misconfigured("docker is not installed"), EnvironmentFailed("no engine")])
def test_console_that_fails_too_is_told(
    collected: Callable[..., dict[str, str]], machines: RecordedMachines, runner: FakeRunner, error: Exception
) -> None:
    machines.on("sudo sh -c", SILENT, "coreos-1")
    runner.on("docker exec", raises=error)

    files = collected()

    assert files["coreos-1/system"].endswith(f"from the console:\n{error}")
    assert len(files) == len(NAMES) * len(QUESTIONS)


def test_target_without_a_console(
    collected: Callable[..., dict[str, str]], machines: RecordedMachines, runner: FakeRunner
) -> None:
    machines.on("sudo sh -c", SILENT)

    files = collected(console=[])

    assert {text.splitlines()[-1] for text in files.values()} == {"this target has none"}
    assert runner.calls == []


def test_secrets_are_not_collected(
    collected: Callable[..., dict[str, str]], machines: RecordedMachines, redact: Redactor, runner: FakeRunner
) -> None:
    redact.add("host key", "very-secret-words")
    machines.on("sudo sh -c", "very-secret-words on disk\n").on("sudo sh -c", SILENT, "coreos-1")
    runner.on("docker exec", stdout="very-secret-words at the console\n")

    files = collected()

    assert not [name for name, text in files.items() if "very-secret-words" in text]
    assert "[host key] on disk" in files["coreos-0/boot"] and "[host key] at the console" in files["coreos-1/boot"]


def test_machines_are_asked_side_by_side(collected: Callable[..., dict[str, str]], machines: RecordedMachines) -> None:
    together = threading.Barrier(len(NAMES))

    def meet(command: str) -> str:
        together.wait(5)
        return ""

    machines.on("user-data", meet)

    assert len(collected()) == len(NAMES) * len(QUESTIONS)


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

    def run(self, name: str, command: str, *, data: bytes = b"", ok: Iterable[int] = (0,)) -> str:
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
