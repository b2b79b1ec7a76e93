"""The live display: what a person sees of a run, above all of one that goes wrong."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from harness.record.log import Recorder
from harness.reports.board import Board
from harness.reports.display import Display, Tail
from harness.reports.lines import Line
from harness.text import LEFT_OUT, SLOW

START = 1_785_578_400.0


class Log:
    """A log that is written with a clock of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = START
        self.recorder = Recorder(path, clock=self.clock)

    def clock(self) -> float:
        return self.now

    def __call__(self, kind: str, after: float = 0, **fields: Any) -> None:
        self.now += after
        self.recorder.emit(kind, **fields)

    def plan(self, name: str, *steps: str, feature: str = "Infrastructure") -> None:
        listed = [{"keyword": step.split()[0], "text": step.split(" ", 1)[1], "line": 9} for step in steps]
        about = {"feature": "features/03_infrastructure.feature", "feature_title": feature, "line": 8, "tags": []}
        self("scenario.planned", id=name, title=name, steps=listed, **about)

    def begin(self, name: str, index: int = 0) -> None:
        if index == 0:
            self("scenario.started", id=name)
        self.recorder.within(scenario=name, step=index)
        self("step.started", id=name, index=index)

    def end(self, name: str, index: int, after: float, error: Any = None) -> None:
        outcome = "failed" if error else "passed"
        self("step.ended", after, id=name, index=index, outcome=outcome, error=error, seconds=after)

    def over(self, name: str, outcome: str, seconds: float, reason: str | None = None) -> None:
        self.recorder.within(scenario=None, step=None)
        self("scenario.ended", id=name, outcome=outcome, reason=reason, seconds=seconds)


@pytest.fixture(autouse=True)
def _a_terminal_that_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "")


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "events.jsonl")


def events(log: Log) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.path.read_text().splitlines()]


def fed(log: Log) -> tuple[Board, list[Line]]:
    board = Board()
    return board, [line for event in events(log) for line in board.feed(event)]


def shown(log: Log, terminal: bool = False, width: int = 80, height: int = 24) -> str:
    """Everything that a display of the finished log writes."""
    out = io.StringIO()
    display = Display(log.path, Console(file=out, width=width, height=height, force_terminal=terminal), log.clock)
    display.start()
    display.stop()
    return out.getvalue()


def visible(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", text).replace("\r", "\n").split("\n")


def texts(lines: list[Line]) -> list[str]:
    return [" ".join(filter(None, (line.mark, line.text, line.right))) for line in lines]


def in_the_middle(log: Log) -> None:
    """A run whose first of two scenarios waits in its second step."""
    log("run.started", run_id="r1", target="local")
    log("stage.started", stage="runbook")
    log.plan(
        "The machines are built", "When the operator types `terraform apply`", "Then 3 machines run", "And they stay"
    )
    log.plan("The cluster agrees", "Then each names 3 members")
    log.begin("The machines are built")
    log.end("The machines are built", 0, 4.2)
    log.begin("The machines are built", 1)
    log("wait.started", id="w1", what="3 machines run", within=60, hold_for=5)
    log("wait.seen", 3, id="w1", value="2 of 3")


# -- logs that end badly ---------------------------------------------------------------------------------------------


def test_killed_in_a_step_says_where_and_what_it_last_saw(log: Log) -> None:
    in_the_middle(log)
    board, _ = fed(log)
    lines = texts(board.finish(log.now + 2))
    assert lines == [
        "! The machines are built interrupted, 9.2 s",
        "Then 3 machines run",
        "expected   3 machines run",
        "last seen  2 of 3",
        "! runbook interrupted, 9.2 s",
    ]
    assert board.finish(log.now + 3) == []
    assert board.live(log.now + 3) == []


def test_scenario_left_open_is_interrupted_when_the_next_stage_starts(log: Log) -> None:
    in_the_middle(log)
    log("command.started", id="c1", argv=["sleep", "1000"])
    log.recorder.within(scenario=None, step=None)
    log("stage.started", stage="teardown")
    board, lines = fed(log)
    assert "! The machines are built interrupted, 7.2 s" in texts(lines)
    assert [line.text for line in board.live(log.now)] == ["teardown · local · r1"]
    assert board.reminders(log.now + 100) == []


def test_scenario_left_open_is_interrupted_when_the_next_one_starts(log: Log) -> None:
    in_the_middle(log)
    log.begin("The cluster agrees")
    board, lines = fed(log)
    assert "! The machines are built interrupted, 7.2 s" in texts(lines)
    assert not board.waits


def test_task_left_open_is_interrupted_when_its_stage_ends(log: Log) -> None:
    log("stage.started", stage="setup")
    log("task.started", task="base image")
    log("command.started", 1, id="c1", argv=["mmdebstrap"])
    log("stage.ended", 2, stage="setup", outcome="failed", error="no space left on device", seconds=3)
    board, lines = fed(log)
    assert texts(lines)[1:] == [
        "! base image interrupted, 3.0 s",
        "✗ setup failed, 3.0 s",
        "no space left on device",
    ]
    assert not board.tasks and not board.commands


def test_half_written_last_line_waits_for_its_end(log: Log) -> None:
    tail = Tail(log.path)
    log("note", text="erst ö")
    whole = log.path.read_bytes()
    cut = whole.index("ö".encode()) + 1
    log.path.write_bytes(whole[:cut])
    assert tail.read() == []
    with log.path.open("ab") as more:
        more.write(whole[cut:])
    assert [event["text"] for event in tail.read()] == ["erst ö"]
    assert tail.read() == []
    tail.close()


def test_line_torn_by_a_killed_process_is_passed_over(log: Log) -> None:
    with log.path.open("ab") as torn:
        torn.write(b'{"t": 1, "kind": "no')
    log("note", text="glued to the torn line")
    log("note", text="whole")
    assert "whole" in shown(log)


def test_no_log_yet_is_no_error(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "later.jsonl")
    assert tail.read() == []
    Log(tmp_path / "later.jsonl")("note", text="here")
    assert len(tail.read()) == 1
    tail.close()


@pytest.mark.parametrize(
    "event",
    [
        {"t": 1, "kind": "sunset"},
        {"t": 1, "kind": "scenario.started", "id": "never planned"},
        {"t": 1, "kind": "step.ended", "id": "never planned", "index": 7},
        {"t": 1, "kind": "wait.seen", "id": "never started", "value": "x"},
        {"t": 1, "kind": "scenario.planned", "id": "no steps"},
        {"t": 1, "kind": "command.started", "id": "c", "argv": None},
        {"t": "yesterday", "kind": "task.started", "task": "t"},
        {"t": 1, "kind": None},
        {"t": 1, "kind": "feed", "text": "a method's name"},
        {"t": 1, "kind": "under.way"},
        {},
    ],
)
def test_event_that_cannot_be_read_is_passed_over(event: dict[str, Any]) -> None:
    board = Board()
    assert board.feed(event) == []
    assert board.live(2) == []


def test_unknown_fields_do_no_harm(log: Log) -> None:
    log("stage.started", stage="setup", colour="blue")
    log("task.started", task="base image", nested={"a": [1]})
    assert texts(fed(log)[0].live(log.now + 1))[1].endswith("base image 1 s")


def test_setup_that_failed_before_anything_was_planned(log: Log) -> None:
    log("stage.started", stage="setup")
    log("task.started", task="base image")
    error = {"kind": "EnvironmentFailed", "message": "mmdebstrap ended with 1: no mirror", "paste": "mmdebstrap trixie"}
    log("task.ended", 3, task="base image", outcome="failed", seconds=3, error=error)
    log("stage.ended", stage="setup", outcome="failed", seconds=3.1)
    assert shown(log).splitlines() == [
        "setup",
        "  ✗ base image  failed, 3.0 s",
        "    mmdebstrap ended with 1: no mirror",
        "    $ mmdebstrap trixie",
        "✗ setup  failed, 3.1 s",
    ]


@pytest.mark.parametrize("error", [BrokenPipeError, OSError])
@pytest.mark.parametrize("terminal", [True, False])
def test_console_that_goes_away_ends_the_display_quietly(log: Log, error: type[OSError], terminal: bool) -> None:
    class Pipe(io.StringIO):
        whole = True

        def write(self, text: str) -> int:
            if not self.whole:
                raise error("the reader went away")
            return super().write(text)

    class Ours(Console):
        def on_broken_pipe(self) -> None:  # as rich does it, but for closing the process's own output
            raise SystemExit(1)

    out, standard = Pipe(), sys.stdout
    display = Display(log.path, Ours(file=out, width=80, force_terminal=terminal), log.clock)
    display.start()
    out.whole = False
    log("note", text="to nobody")
    display.stop()
    assert sys.stdout is standard


def test_stop_may_be_called_twice_and_without_start(log: Log) -> None:
    log("note", text="said once")
    out = io.StringIO()
    display = Display(log.path, Console(file=out, width=80), log.clock)
    display.stop()
    display.stop()
    assert out.getvalue() == "  · said once\n"


# -- plain lines -----------------------------------------------------------------------------------------------------


def whole_run(log: Log) -> None:
    log("run.started", run_id="r1", target="local")
    log("stage.started", stage="setup")
    log("task.started", task="toolchain")
    log("task.started", task="base image")
    log("task.ended", 0.1, task="toolchain", outcome="cached", seconds=0.1)
    log("task.ended", 64, task="base image", outcome="done", seconds=64.1)
    log("stage.ended", stage="setup", outcome="passed", seconds=64.1)
    log("stage.started", stage="runbook")
    log.plan("The machines are built", "When the operator types `terraform apply`", "Then 3 machines run")
    log.plan("The blog answers", 'Given "hello" is deployed', "Then it answers 200", "And it is fast", feature="Blogs")
    log.plan("The blog is found", "Then it is found", feature="Blogs")
    log.plan("Nobody came this far", "Then nothing", feature="Recovery")
    log.begin("The machines are built")
    log.end("The machines are built", 0, 21)
    log.begin("The machines are built", 1)
    log.end("The machines are built", 1, 2.5)
    log.over("The machines are built", "passed", 23.6)
    log.begin("The blog answers")
    log.end("The blog answers", 0, 0.2)
    log.begin("The blog answers", 1)
    error = {
        "kind": "WaitExpired",
        "message": "not within 30 s",
        "expected": "200 within 30 s",
        "seen": "502 Bad Gateway",
        "where": "http://hello.example/",
        "paste": "curl -sv --resolve hello.example:80:172.28.5.11 'http://hello.example/?a=long&query=string'",
        "layer": "discovery",
    }
    log.end("The blog answers", 1, 30.1, error)
    log.over("The blog answers", "failed", 30.4, "not within 30 s")
    log.over("The blog is found", "not_run", 0, 'stands on "The blog answers", which failed')
    log("stage.ended", stage="runbook", outcome="failed", seconds=54)
    log("stage.started", stage="teardown")
    log("leak", what="volume", name="r1-var", removed=True)
    log("stage.ended", stage="teardown", outcome="passed", seconds=5)
    log("run.ended", status=1, headline="discovery is wrong")


GOLDEN = """\
setup
  ✓ toolchain  cached
  ✓ base image  1 min 04 s
✓ setup  1 min 04 s
runbook
  Infrastructure
    The machines are built
      ✓ When the operator types `terraform apply`  21.0 s
      ✓ Then 3 machines run  2.5 s
    ✓ The machines are built  23.6 s
  Blogs
    The blog answers
      ✓ Given "hello" is deployed  0.2 s
      ✗ Then it answers 200  failed, 30.1 s
    ✗ The blog answers  failed, 30.4 s
      Then it answers 200
        layer      discovery
        expected   200 within 30 s
        last seen  502 Bad Gateway
        where      http://hello.example/
        $ curl -sv --resolve hello.example:80:172.28.5.11 'http://hello.example/?a=long&query=string'
    - The blog is found  not run
      stands on "The blog answers", which failed
✗ runbook: 1 passed, 1 failed, 2 not run  failed, 54.0 s
teardown
  ✗ leak: volume r1-var  removed afterwards
✓ teardown  5.0 s
"""


def test_plain_lines_of_a_whole_run(log: Log) -> None:
    whole_run(log)
    assert shown(log) == GOLDEN


def test_plain_lines_stay_within_80_columns_but_never_break_a_command(log: Log) -> None:
    log("stage.started", stage="runbook")
    title = "A scenario whose title goes on and on, well past the end of a line of 80 columns, and then some"
    log.plan(title, "Then 日本語 " + "の長い文 " * 20)
    log.begin(title)
    log.end(title, 0, 1, {"message": "word " * 40, "paste": "echo " + "x" * 200})
    log.over(title, "failed", 1)
    lines = shown(log).splitlines()
    assert [line for line in lines if cell_len(line) > 80] == [f"        $ echo {'x' * 200}"]
    assert "    ✗ A scenario whose title goes on and on, well past the end of a line of 80" in lines
    assert "      columns, and then some  failed, 1.0 s" in lines


def test_plain_lines_have_no_escapes_and_take_no_markup(log: Log) -> None:
    log("note", text="\x1b[31mred\x1b[0m [bold]not markup[/bold] \x1b]0;title\x07\x00 two\nlines :smile:")
    assert shown(log) == "  · red [bold]not markup[/bold] two lines :smile:\n"


def test_long_step_is_spoken_of_every_ten_seconds(log: Log) -> None:
    in_the_middle(log)
    board, _ = fed(log)
    began = log.now - 3
    said = [text for second in range(35) for text in texts(board.reminders(began + second))]
    assert said == [
        "… Then 3 machines run: 10 s, waiting: 3 machines run (10 s of 1 min 05 s), last seen: 2 of 3",
        "… Then 3 machines run: 20 s, waiting: 3 machines run (20 s of 1 min 05 s), last seen: 2 of 3",
        "… Then 3 machines run: 30 s, waiting: 3 machines run (30 s of 1 min 05 s), last seen: 2 of 3",
    ]
    assert board.reminders(began + 34.9) == []


def test_long_command_is_named_unless_the_step_names_it(log: Log) -> None:
    log("stage.started", stage="runbook")
    log.plan("s", "When the operator types `terraform apply`", "Then it is so")
    log.begin("s")
    log("command.started", id="c1", line="terraform apply", typed=True)
    assert texts(fed(log)[0].reminders(log.now + 11)) == [
        "… When the operator types `terraform apply`: 11 s, still running"
    ]
    log("command.started", id="c2", argv=["terraform", "output"])
    assert texts(fed(log)[0].reminders(log.now + 11))[0].endswith("11 s, running `terraform output`")
    log("command.ended", id="c1")
    log("command.ended", id="c2")
    assert texts(fed(log)[0].reminders(log.now + 11))[0].endswith("no command and no wait under way")


def test_long_task_names_its_command_only_while_it_is_alone(log: Log) -> None:
    log("stage.started", stage="setup")
    log("task.started", task="base image")
    log("command.started", id="c1", argv=["mmdebstrap", "a b"])
    assert texts(fed(log)[0].reminders(log.now + 12)) == ["… base image: 12 s, running `mmdebstrap 'a b'`"]
    log("task.started", task="fleet")
    said = texts(fed(log)[0].reminders(log.now + 12))
    assert said == ["… base image: 12 s, at work", "… fleet: 12 s, at work"]


def test_plain_display_reminds_while_it_follows(log: Log) -> None:
    out = io.StringIO()
    display = Display(log.path, Console(file=out, width=80), log.clock)
    in_the_middle(log)
    display.tick()
    log.now += 10
    display.tick()
    display.tick()
    display.stop()
    assert out.getvalue().count("last seen: 2 of 3") == 1


# -- a terminal ------------------------------------------------------------------------------------------------------


def test_region_shows_step_wait_limit_and_hold(log: Log) -> None:
    in_the_middle(log)
    log("command.started", id="c1", argv=["ssh", "machine-1"])
    board, _ = fed(log)
    lines = texts(board.live(log.now + 4))
    assert lines == [
        "runbook · local · r1 0 of 2 · 11 s",
        "Infrastructure › The machines are built",
        "✓ When the operator types `terraform apply` 4.2 s",
        f"{lines[3][0]} Then 3 machines run 7 s",
        "· And they stay",
        "$ ssh machine-1 4 s",
        "… waiting: 3 machines run 7 s of 1 min 05 s",
        "last saw 2 of 3 for 4 s",
        "must then hold for 5 s",
    ]


def test_region_gives_each_parallel_task_a_spinner_and_its_seconds(log: Log) -> None:
    log("stage.started", stage="setup")
    log("task.started", task="base image")
    log("task.started", 5, task="fleet")
    board, _ = fed(log)
    first, second = (board.live(log.now + later) for later in (7.05, 7.25))
    assert [line.text + " " + line.right for line in first[1:]] == ["base image 12 s", "fleet 7 s"]
    assert first[1].mark != second[1].mark


def test_region_follows_the_step_of_a_long_scenario(log: Log) -> None:
    log.plan("long", *(f"Then claim {number}" for number in range(40)))
    for index in range(30):
        log.begin("long", index)
        log.end("long", index, 1)
    log.begin("long", 30)
    lines = [line.text for line in fed(log)[0].live(log.now)]
    assert lines[2:] == [*(f"Then claim {number}" for number in range(26, 34)), "6 more"]


def test_terminal_keeps_finished_things_and_cuts_at_80_columns(log: Log) -> None:
    whole_run(log)
    log("stage.started", stage="runbook")
    log.plan("x" * 100, "Then " + "日本" * 60)
    log.begin("x" * 100)
    log("wait.started", id="w", what="y" * 100, within=5, hold_for=0)
    log("wait.seen", id="w", value="z" * 100 + "\x1b[2J[/red]")
    out = io.StringIO()
    display = Display(log.path, Console(file=out, width=80, height=24, force_terminal=True), log.clock)
    display.start()
    display.tick()
    lines = visible(out.getvalue())
    display.stop()
    kept = [line.rstrip() for line in lines]
    assert f"    ✓ The machines are built{'23.6 s':>52}" in kept
    assert f"    ✗ The blog answers{'failed, 30.4 s':>58}" in kept
    assert any(line.startswith("      Then it answers 200") for line in kept)
    assert not any("✓ Then 3 machines run" in line for line in kept), "steps that passed are for plain lines"
    assert any("zzz…" in line for line in kept)
    assert [line for line in lines if cell_len(line) > 80 and "curl" not in line] == []


def test_terminal_region_is_wiped_at_the_end_and_the_cursor_comes_back(log: Log) -> None:
    in_the_middle(log)
    text = shown(log, terminal=True)
    assert "\x1b[?25l" in text and text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "\x1b[2K" in text
    assert "interrupted" in text


def test_low_terminal_gets_a_low_region(log: Log) -> None:
    in_the_middle(log)
    out = io.StringIO()
    display = Display(log.path, Console(file=out, width=80, height=4, force_terminal=True), log.clock)
    display.start()
    display.tick()
    display.tick()
    assert max(int(up) for up in re.findall(r"\x1b\[(\d+)A", out.getvalue()) or ["0"]) <= 3
    assert out.getvalue().count("\x1b[1A") <= 8
    display.stop()


def test_colours_only_where_they_are_wanted(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_run(log)
    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]")
    assert colour.search(shown(log, terminal=True))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(shown(log, terminal=True))


def test_dumb_terminal_gets_plain_lines(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    whole_run(log)
    assert shown(log, terminal=True) == GOLDEN


def test_terminal_without_unicode_gets_ascii(log: Log) -> None:
    whole_run(log)
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    display = Display(log.path, Console(file=out, width=80), log.clock)
    display.stop()
    out.flush()
    assert b"+ The machines are built  23.6 s" in raw.getvalue()
    assert b"x The blog answers  failed, 30.4 s" in raw.getvalue()


# -- a record that goes on -------------------------------------------------------------------------------------------


def after(log: Log, terminal: bool = False) -> tuple[Display, io.StringIO]:
    """A display of what comes after what the log holds now."""
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=terminal)
    return Display(log.path, console, log.clock, after=log.path.stat().st_size), out


@pytest.mark.parametrize("terminal", [False, True])
def test_what_was_there_before_is_not_shown_again(log: Log, terminal: bool) -> None:
    in_the_middle(log)
    display, out = after(log, terminal)
    log("stage.started", stage="teardown")
    log("note", text="the cluster goes")
    log("stage.ended", 3, stage="teardown", outcome="passed", seconds=3.0, error=None)
    with display:
        pass

    said = "\n".join(visible(out.getvalue()))
    assert "the cluster goes" in said and "teardown" in said
    assert "The machines are built" not in said and "interrupted" not in said


def test_record_to_which_nothing_came_shows_nothing(log: Log) -> None:
    in_the_middle(log)
    display, out = after(log)
    with display:
        pass

    assert out.getvalue() == ""


def test_line_that_was_torn_before_does_not_swallow_the_next(log: Log) -> None:
    log("note", text="before")
    with log.path.open("a") as file:
        file.write('{"t": 17, "kind": "stage.en')  # by a process that was killed
    tail = Tail(log.path, log.path.stat().st_size)
    log("note", text="after")

    assert [event["text"] for event in tail.read()] == ["after"]
    tail.close()


def test_log_that_is_not_there_yet_is_read_from_its_beginning(log: Log, tmp_path: Path) -> None:
    tail = Tail(tmp_path / "later.jsonl")
    assert tail.read() == []
    Recorder(tmp_path / "later.jsonl").emit("note", text="first")

    assert [event["text"] for event in tail.read()] == ["first"]
    tail.close()


def test_thread_follows_the_log_as_it_grows(log: Log) -> None:
    out = io.StringIO()
    before = threading.active_count()
    with Display(log.path, Console(file=out, width=80), log.clock):
        log("note", text="while it runs")
        assert eventually(lambda: "while it runs" in out.getvalue())
    assert threading.active_count() == before


def eventually(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 3
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


@pytest.mark.parametrize("reason", [LEFT_OUT, SLOW])
def test_what_something_else_was_chosen_for_is_counted_and_not_shown(log: Log, reason: str) -> None:
    log("run.started", run_id="r1", target="local")
    log("stage.started", stage="runbook")
    log.plan("The blog answers", "Then it answers")
    log.plan("The blog is found", "Then it is found")
    log.over("The blog is found", "not_run", 0, reason)
    board, lines = fed(log)

    assert not [line for line in texts(lines) if "The blog is found" in line]
    assert "not run" in board.counted()
