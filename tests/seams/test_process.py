"""The seam to external commands: how a command ends, what is left of it, and what the record keeps."""

from __future__ import annotations

import base64
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import CommandFailed, ExitStatus, HarnessError, Misconfigured, PlatformWrong
from harness.record.log import Recorder, Redactor
from harness.seams.process import STREAM_LIMIT, Processes

Events = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def process(recorder: Recorder) -> Processes:
    return Processes(recorder)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of patience with a command that is to end become a fiftieth of that."""

    class Impatient(subprocess.Popen):  # type: ignore[type-arg]
        def communicate(self, input: Any = None, timeout: float | None = None) -> Any:
            return super().communicate(input, timeout if timeout is None or timeout < 1 else timeout / 50)

        def wait(self, timeout: float | None = None) -> int:
            return super().wait(timeout if timeout is None or timeout < 1 else timeout / 50)

    monkeypatch.setattr(subprocess, "Popen", Impatient)


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def lives(number: int) -> bool:
    """Whether a process runs: a zombie does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(number: int, within: float = 1) -> bool:
    end = time.monotonic() + within
    while lives(number) and time.monotonic() < end:
        time.sleep(0.01)
    return not lives(number)


def numbers(file: Path, count: int) -> list[int]:
    """The process numbers that a child wrote, once they are all there."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if file.exists() and len(found := file.read_text().split()) == count:
            return [int(number) for number in found]
        time.sleep(0.01)
    raise AssertionError(f"{file} never held {count} numbers")


def waits(thread: threading.Thread) -> bool:
    """Whether a thread has come so far as to wait for its command."""
    frame = sys._current_frames()[thread.ident or 0]
    names = {found.f_code.co_name for found, _ in traceback.walk_stack(frame)}
    return "communicate" in names


# -- the end of all --------------------------------------------------------------------------------------------------


def test_a_command_that_is_just_being_started_is_ended_with_the_others(
    process: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt comes when it runs already, and before anybody knows of it."""
    popen = subprocess.Popen
    started, ending = threading.Event(), threading.Event()

    class Slow(popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.set()
            ending.wait(0.2)

    monkeypatch.setattr(subprocess, "Popen", Slow)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            process.run(["sleep", "20"])
        except BaseException as failed:  # noqa: BLE001
            failures.append(failed)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(5)
    process.end_all()
    ending.set()
    thread.join(5)

    assert not thread.is_alive()
    assert [type(failed) for failed in failures] == [CommandFailed]
    with pytest.raises(KeyboardInterrupt):
        process.run(["true"])


def test_a_command_that_does_not_heed_the_end_of_all_is_killed(
    process: Processes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("harness.seams.process.INTERRUPT_LIMIT", 0.1)
    up = tmp_path / "up"
    script = f"import signal, time; signal.signal(2, signal.SIG_IGN); open({str(up)!r}, 'w'); time.sleep(20)"
    thread = threading.Thread(target=lambda: process.run(python(script), ok=None))
    thread.start()
    while not up.exists():
        time.sleep(0.01)
    process.end_all()
    thread.join(5)

    assert not thread.is_alive()


# -- a command that cannot start -----------------------------------------------------------------------------------


def test_a_program_that_is_missing_is_misconfiguration(process: Processes, events: Events) -> None:
    with pytest.raises(Misconfigured, match="no-such-program is not installed or not on PATH") as failed:
        process.run(["no-such-program", "--version"])

    assert "needed for `no-such-program --version`" in str(failed.value)
    assert [event["status"] for event in events("command.ended")] == ["not found"]


def test_a_missing_program_names_the_line_that_needs_it(process: Processes) -> None:
    with pytest.raises(Misconfigured, match=r"needed for `fleetctl list-units \| wc -l`"):
        process.run(["no-such-bash", "-c", "..."], line="fleetctl list-units | wc -l")


def test_a_missing_working_folder_is_not_called_a_missing_program(process: Processes, tmp_path: Path) -> None:
    with pytest.raises(HarnessError) as failed:
        process.run(["true"], cwd=tmp_path / "gone")

    assert "true is not installed" not in str(failed.value)
    assert str(tmp_path / "gone") in str(failed.value)


def test_a_file_that_is_no_program_is_misconfiguration(process: Processes, events: Events, tmp_path: Path) -> None:
    (tmp_path / "not-executable").write_text("echo hello\n")

    with pytest.raises(Misconfigured, match="not-executable"):
        process.run([str(tmp_path / "not-executable")])

    assert len(events("command.ended")) == 1


# -- a status that is no answer ------------------------------------------------------------------------------------


def test_a_status_that_is_no_answer_fails_with_what_to_paste(process: Processes) -> None:
    script = "echo seen; echo first >&2; echo 'the last line' >&2; exit 3"
    with pytest.raises(CommandFailed) as failed:
        process.run(["sh", "-c", script])

    error = failed.value
    assert (error.status_seen, error.stdout, error.stderr) == (3, "seen\n", "first\nthe last line\n")
    assert error.status is ExitStatus.PLATFORM_WRONG
    assert str(error).endswith("ended with 3: the last line")
    assert error.seen == "status 3: the last line"
    assert shlex.split(error.paste) == ["sh", "-c", script]


def test_what_is_to_be_pasted_gives_the_same_failure_again(process: Processes) -> None:
    with pytest.raises(CommandFailed) as failed:
        process.run(["sh", "-c", 'echo "$1" >&2; exit 7', "sh", "a 'quoted' $name"])

    again = subprocess.run(failed.value.paste, shell=True, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (7, "a 'quoted' $name\n")


def test_a_typed_line_is_pasted_as_it_was_typed(process: Processes) -> None:
    line = "terraform -chdir=infra/$TARGET apply platform.plan"
    with pytest.raises(CommandFailed) as failed:
        process.run(["sh", "-c", "exit 1"], line=line)

    assert failed.value.paste == line
    assert str(failed.value) == f"command `{line}` ended with 1: no output"


def test_a_long_command_is_cut_in_the_message_and_whole_in_what_is_to_be_pasted(process: Processes) -> None:
    script = "exit 7 # " + "long " * 200
    with pytest.raises(CommandFailed) as failed:
        process.run(["sh", "-c", script])

    assert len(str(failed.value)) < 300
    assert shlex.split(failed.value.paste) == ["sh", "-c", script]


def test_a_command_without_a_word_on_stderr_is_judged_by_its_stdout(process: Processes) -> None:
    with pytest.raises(CommandFailed, match="ended with 1: only here"):
        process.run(["sh", "-c", "echo only here; exit 1"])


def test_a_command_ended_by_a_signal_has_a_negative_status(process: Processes) -> None:
    assert process.run(["sh", "-c", "kill -KILL $$"], ok=None).status == -signal.SIGKILL


def test_a_status_that_is_listed_is_an_answer(process: Processes) -> None:
    assert process.run(["sh", "-c", "exit 2"], ok=(0, 2)).status == 2
    with pytest.raises(CommandFailed):
        process.run(["sh", "-c", "exit 1"], ok=(0, 2))


def test_every_status_is_an_answer_when_none_is_listed(process: Processes) -> None:
    assert process.run(["sh", "-c", "exit 99"], ok=None).status == 99


# -- a command that does not end -----------------------------------------------------------------------------------


def test_a_command_that_does_not_end_is_ended_and_says_what_it_said_last(process: Processes, events: Events) -> None:
    with pytest.raises(PlatformWrong) as failed:
        process.run(["sh", "-c", "echo waiting for the lock; exec sleep 60"], within=0.3)

    assert "did not end within 0.3 s: waiting for the lock" in str(failed.value)
    assert failed.value.expected == "an end within 0.3 s"
    assert shlex.split(failed.value.paste)[:2] == ["sh", "-c"]
    (ended,) = events("command.ended")
    assert ended["status"] == "no end within 0.3 s"
    assert ended["stdout"] == "waiting for the lock\n"
    assert ended["seconds"] < 5


def test_a_command_is_asked_first_and_may_end_in_order(process: Processes, events: Events) -> None:
    script = "import signal, time\ntry:\n  time.sleep(60)\nexcept KeyboardInterrupt:\n  print('lock released')"
    with pytest.raises(PlatformWrong):
        process.run(python(script), within=0.5)

    assert events("command.ended")[0]["stdout"] == "lock released\n"


@pytest.mark.parametrize("ignored", ["SIGINT", "SIGINT, signal.SIGTERM"])
def test_a_command_that_ignores_being_asked_is_killed(
    process: Processes, tmp_path: Path, impatient: None, ignored: str
) -> None:
    file = tmp_path / "numbers"
    script = (
        f"import os, pathlib, signal, time\nfor number in (signal.{ignored},): signal.signal(number, signal.SIG_IGN)\n"
        f"pathlib.Path({str(file)!r}).write_text(str(os.getpid()))\ntime.sleep(60)"
    )
    with pytest.raises(PlatformWrong, match="did not end"):
        process.run(python(script), within=0.4)

    assert gone(numbers(file, 1)[0])


@pytest.mark.parametrize(
    "streams",
    [
        pytest.param("", id="that hold the command's streams"),
        # the streams end with the leader: that alone must not be taken for the end of the group
        pytest.param(">/dev/null 2>&1", id="that hold no stream of the command"),
    ],
)
def test_a_time_out_ends_grandchildren(process: Processes, tmp_path: Path, impatient: None, streams: str) -> None:
    file = tmp_path / "numbers"
    # a shell starts what stands in its background with SIGINT ignored
    script = f"(echo $$; sleep 61 {streams} & echo $!; sleep 62 {streams} & echo $!) >{file}; sleep 63"
    with pytest.raises(PlatformWrong, match="did not end"):
        process.run(["bash", "-c", script], within=0.4)

    assert [number for number in numbers(file, 3) if not gone(number)] == []


def test_an_interruption_ends_the_whole_group_and_is_recorded(
    process: Processes, events: Events, tmp_path: Path
) -> None:
    file = tmp_path / "numbers"
    script = f"sleep 61 >/dev/null 2>&1 & echo $$ $! >{file}; echo half done; sleep 62"

    def interrupt() -> None:
        numbers(file, 2)
        while not waits(threading.main_thread()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            process.run(["bash", "-c", script], within=30)
    finally:
        thread.join()

    assert [number for number in numbers(file, 2) if not gone(number)] == []
    (ended,) = events("command.ended")
    assert (ended["status"], ended["stdout"]) == ("interrupted", "half done\n")


def test_a_command_is_out_of_reach_of_the_terminals_interrupt(process: Processes) -> None:
    answer = process.run(python("import os; print(os.getpgid(0), os.getpid())")).stdout.split()

    assert answer[0] == answer[1] != str(os.getpgid(0))


# -- streams, working folder, environment --------------------------------------------------------------------------


def test_both_streams_are_given_and_recorded(process: Processes, events: Events) -> None:
    result = process.run(["sh", "-c", "echo out; echo err >&2"])

    assert (result.status, result.stdout, result.stderr) == (0, "out\n", "err\n")
    (ended,) = events("command.ended")
    assert (ended["status"], ended["stdout"], ended["stderr"]) == (0, "out\n", "err\n")


def test_a_long_stream_is_whole_for_the_caller_and_cut_in_the_record(process: Processes, events: Events) -> None:
    size = STREAM_LIMIT + 1000
    result = process.run(python(f"print('first' + 'x' * {size} + 'last', end='')"))

    assert len(result.stdout) == size + len("firstlast")
    kept = events("command.ended")[0]["stdout"]
    assert kept.startswith("first")
    assert kept.endswith("last")
    assert f"[... {1000 + len('firstlast')} characters left out ...]" in kept
    assert len(kept) < STREAM_LIMIT + 100


def test_a_stream_of_exactly_the_limit_is_not_cut(process: Processes, events: Events) -> None:
    process.run(python(f"print('x' * {STREAM_LIMIT}, end='')"))

    assert events("command.ended")[0]["stdout"] == "x" * STREAM_LIMIT


def test_bytes_that_are_no_text_do_not_stop_a_command(process: Processes) -> None:
    assert process.run(["printf", r"a\377b"]).stdout == "a\N{REPLACEMENT CHARACTER}b"


def test_stdin_is_what_was_given_and_otherwise_empty(process: Processes) -> None:
    assert process.run(["cat"], stdin="a line\n").stdout == "a line\n"
    assert process.run(["cat"], within=5).stdout == ""


def test_more_stdin_than_a_pipe_holds_does_not_hang(process: Processes) -> None:
    assert process.run(["wc", "-c"], stdin="x" * 1_000_000).stdout.split() == ["1000000"]
    assert process.run(["true"], stdin="x" * 1_000_000).status == 0


def test_stdin_is_not_recorded(process: Processes, recorder: Recorder) -> None:
    process.run(["true"], stdin="the private key")

    assert "the private key" not in recorder.path.read_text()


def test_names_of_the_environment_are_recorded_and_their_values_are_not(
    process: Processes, events: Events, recorder: Recorder
) -> None:
    added = {"TOKEN": "value-of-the-token", "NEXT": "2"}

    assert process.run(["sh", "-c", 'echo "${#TOKEN} $NEXT"'], add_env=added).stdout == "18 2\n"
    assert events("command.started")[0]["environment"] == ["NEXT", "TOKEN"]
    assert "value-of-the-token" not in recorder.path.read_text()


def test_an_environment_that_is_given_replaces_ours(process: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_HARNESS", "1")

    assert process.run(["/usr/bin/env"], env={"ONLY": "this"}).stdout == "ONLY=this\n"
    assert process.run(["/usr/bin/env"], env={"ONLY": "this"}, add_env={"AND": "that"}).stdout.split() == [
        "ONLY=this",
        "AND=that",
    ]
    assert "OF_THE_HARNESS=1" in process.run(["/usr/bin/env"], add_env={"A": "b"}).stdout.split()


def test_what_was_started_is_recorded_before_it_ends(process: Processes, recorder: Recorder, tmp_path: Path) -> None:
    line = f"grep -c command.started {shlex.quote(str(recorder.path))}"

    assert process.run(["sh", "-c", line], cwd=tmp_path).stdout == "1\n"


def test_start_and_end_of_a_command_belong_together(process: Processes, events: Events, tmp_path: Path) -> None:
    process.run(["true"], cwd=tmp_path)
    process.run(["sh", "-c", "cd /"], line="cd /")

    first, first_end, second, second_end = events()
    assert (first["argv"], first["line"], first["typed"], first["cwd"]) == (["true"], None, False, str(tmp_path))
    assert (second["argv"], second["line"], second["typed"]) == (None, "cd /", True)
    assert first["id"] == first_end["id"] != second["id"] == second_end["id"]


# -- secrets -------------------------------------------------------------------------------------------------------


def test_a_secret_reaches_the_record_by_no_channel(process: Processes, redact: Redactor, recorder: Recorder) -> None:
    redact.add("token", "correct horse battery")
    encoded = base64.b64encode(b"correct horse battery").decode()

    result = process.run(["sh", "-c", 'echo "$1"; echo "$2" >&2', "sh", "correct horse battery", encoded])

    assert result.stdout == "correct horse battery\n", "the caller gets what the command gave"
    log = recorder.path.read_text()
    assert "correct horse" not in log
    assert encoded not in log
    assert log.count("[token]") >= 4


def test_a_secret_that_lies_across_the_cut_of_a_long_stream_is_hidden(
    process: Processes, redact: Redactor, recorder: Recorder
) -> None:
    secret = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW"
    redact.add("ssh private key", secret)
    before = "." * (STREAM_LIMIT // 2 - len(secret) + 5)

    process.run(["cat"], stdin=f"{before}{secret}\n{'.' * STREAM_LIMIT}")

    assert secret[:20] not in recorder.path.read_text()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("I: it begins\nE: not signed\nE: apt-get update failed\nE: mmdebstrap failed to run\n", "E: not signed"),
        ("E: this alone\n", "E: this alone"),
        ("E: a remark\nand the reason\n", "and the reason"),
    ],
)
def test_apt_says_first_why_it_failed(said: str, why: str) -> None:
    """And last what it ran, which tells nothing."""
    assert str(CommandFailed(["mmdebstrap"], 25, "", said)) == f"command `mmdebstrap` ended with 25: {why}"
