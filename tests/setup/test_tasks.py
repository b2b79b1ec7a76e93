"""Tasks that stand on each other: done side by side, each once; the first failure ends them all and is raised."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from harness.errors import CommandFailed, EnvironmentFailed, Misconfigured, PlatformWrong, WaitExpired
from harness.record.log import Recorder
from harness.seams.process import Processes
from harness.setup.tasks import Tasks

Events = Callable[..., list[dict[str, Any]]]
Made = Callable[..., Tasks]


@pytest.fixture
def tasks(recorder: Recorder) -> Made:
    """Makes tasks: name=(what it stands on, what does it)."""
    return lambda **graph: Tasks(graph, recorder, end_commands=lambda: None)


def done() -> str:
    return "done"


def failing(error: BaseException) -> Callable[[], str]:
    def fail() -> str:
        raise error

    return fail


# -- tasks that fail -----------------------------------------------------------------------------------------------


def test_a_task_that_fails_stops_what_stands_on_it_and_is_raised(tasks: Made, events: Events) -> None:
    began: list[str] = []

    def above() -> str:
        began.append("above")
        return "done"

    graph = tasks(
        broken=((), failing(Misconfigured("install it"))),
        above=(("broken",), above),
        top=(("above",), above),
    )
    with pytest.raises(Misconfigured, match=r"^install it$"):
        graph.do(["top"])

    assert began == []
    (ended,) = events("task.ended")
    assert (ended["task"], ended["outcome"], ended["error"]) == ("broken", "failed", "install it")


def test_what_runs_beside_a_failure_ends_before_it_is_raised(tasks: Made, events: Events) -> None:
    failed = threading.Event()

    def broken() -> str:
        failed.set()
        raise EnvironmentFailed("no network")

    def beside() -> str:
        assert failed.wait(5)
        time.sleep(0.05)
        return "done"

    def slow() -> str:
        time.sleep(0.2)
        return "done"

    never: list[str] = []

    def above() -> str:
        never.append("above")
        return "done"

    graph = tasks(
        broken=((), broken),
        beside=((), beside),
        slow=((), slow),
        above=(("beside",), above),
        on_broken=(("broken",), above),
    )
    with pytest.raises(EnvironmentFailed, match="no network"):
        graph.do(["on_broken", "above", "slow"])

    ended = {event["task"]: event["outcome"] for event in events("task.ended")}
    assert ended == {"broken": "failed", "beside": "done", "slow": "done"}
    assert never == []


def test_the_first_of_two_failures_is_raised(tasks: Made) -> None:
    first_failed = threading.Event()

    def first() -> str:
        first_failed.set()
        raise EnvironmentFailed("first")

    def second() -> str:
        assert first_failed.wait(5)
        time.sleep(0.05)
        raise EnvironmentFailed("second")

    graph = tasks(first=((), first), second=((), second))
    with pytest.raises(EnvironmentFailed, match="first"):
        graph.do(["second", "first"])


@pytest.mark.parametrize(
    "error",
    [
        CommandFailed(["go", "build"], 1, "", "dial tcp: lookup modules.example: no such host"),
        PlatformWrong("command `pip` did not end within 900 s"),
        WaitExpired("the Docker Engine answers: not within 60 s"),
        OSError(28, "No space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_fails_in_set_up_is_never_the_platforms_fault(tasks: Made, events: Events, error: Exception) -> None:
    graph = tasks(fleet=((), failing(error)))
    with pytest.raises(EnvironmentFailed, match="set-up of fleet: ") as raised:
        graph.do(["fleet"])

    assert str(error) in str(raised.value)
    assert raised.value.__cause__ is error
    assert events("task.ended")[0]["error"] == str(raised.value)


@pytest.mark.parametrize(
    "error", [Misconfigured("root is needed"), EnvironmentFailed("2 GiB free"), ValueError("what")]
)
def test_what_is_not_the_platforms_stays_what_it_is(tasks: Made, error: Exception) -> None:
    graph = tasks(fleet=((), failing(error)))
    with pytest.raises(type(error)) as raised:
        graph.do(["fleet"])

    assert raised.value is error


def test_an_interruption_ends_the_commands_of_all_tasks_at_once(recorder: Recorder) -> None:
    process = Processes(recorder)
    both = threading.Barrier(3)

    def build() -> str:
        both.wait(5)
        process.run(["sleep", "20"])
        process.run(["sleep", "20"])
        return "done"

    def interrupt() -> None:
        both.wait(5)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    graph = Tasks({"go": ((), build), "terraform": ((), build)}, recorder, process.end_all)
    thread = threading.Thread(target=interrupt)
    thread.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        graph.do(["go", "terraform"])
    thread.join()

    assert time.monotonic() - started < 15


def test_a_failure_ends_what_nobody_needs_any_more(recorder: Recorder, events: Events) -> None:
    process = Processes(recorder)
    both = threading.Barrier(2)

    def build() -> str:
        both.wait(5)
        process.run(["sleep", "20"])
        return "done"

    def fail() -> str:
        both.wait(5)
        time.sleep(0.1)
        raise EnvironmentFailed("no space left")

    graph = Tasks({"go": ((), build), "terraform": ((), fail)}, recorder, process.end_all)
    started = time.monotonic()
    with pytest.raises(EnvironmentFailed, match="no space left"):
        graph.do(["go", "terraform"])

    assert time.monotonic() - started < 5
    ended = {event["task"]: (event["outcome"], event["error"]) for event in events("task.ended")}
    assert ended == {"go": ("interrupted", None), "terraform": ("failed", "no space left")}


# -- tasks that do their work --------------------------------------------------------------------------------------


def test_tasks_that_do_not_wait_for_each_other_run_side_by_side(tasks: Made) -> None:
    together = threading.Barrier(3, timeout=5)

    def meet() -> str:
        together.wait()
        return "done"

    graph = tasks(base=((), done), one=(("base",), meet), two=(("base",), meet), three=(("base",), meet))
    graph.do(["one", "two", "three"])

    assert not together.broken


def test_a_task_is_done_once_after_all_that_it_stands_on(tasks: Made, events: Events) -> None:
    graph = tasks(
        base=((), done), left=(("base",), done), right=(("base",), done), top=(("left", "right"), done), no=((), done)
    )
    graph.do(["top", "left", "top"])

    order = [event["task"] for event in events("task.ended")]
    assert sorted(order) == ["base", "left", "right", "top"]
    assert (order[0], order[-1]) == ("base", "top")


def test_nothing_asked_for_is_nothing_done(tasks: Made, events: Events) -> None:
    graph = tasks(base=((), done))
    graph.do([])

    assert events("task.started") == []
