"""What pytest-bdd does, written into the record: small features of this file, executed in process with the plugins that
a run loads, and no cluster. pytest-bdd's own report says "passed" of several of these."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.record.log import fold, read_events
from harness.reports.verdict import judge

pytest_plugins = "pytester"

STEPS = """
import pytest
from pytest_bdd import given, parsers, scenarios, then, when
from harness.errors import EnvironmentFailed, PlatformWrong

scenarios(".")

@pytest.fixture
def ground():
    raise EnvironmentFailed("the engine does not answer")

@pytest.fixture
def undone():
    yield
    raise PlatformWrong("coreos-1 cannot be switched on again")

@given("a ground that cannot be made", target_fixture="made")
def cannot(request):
    return request.getfixturevalue("ground")

@when("something is broken that stays broken")
def broken(undone): ...

@when("something is changed")
def changed(): ...

@then("all is well")
def well(): ...

@then("something is wrong")
def wrong():
    raise PlatformWrong("no unit runs", expected="a unit", seen="none", where="coreos-1", paste="fleetctl list-units")

@then("a claim is false")
def false():
    assert 1 == 2

@then("the harness stumbles")
def stumbles():
    raise KeyError("x")

@then("the step is skipped")
def skipped():
    pytest.skip("not today")

@then("the step ends the program")
def exits():
    raise SystemExit(0)

@then("pytest is told to exit")
def told():
    pytest.exit("enough")

@then("somebody presses Ctrl-C")
def interrupted():
    raise KeyboardInterrupt
"""
BROKEN_FIXTURE = """
@pytest.fixture(autouse=True)
def stands(request):
    raise EnvironmentFailed("the engine does not answer")
"""


@pytest.fixture
def executed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Executes the scenarios of a feature; the document of the run."""

    def execute(*scenarios: str, options: tuple[str, ...] = (), steps: str = STEPS) -> dict[str, Any]:
        folder = pytester.mkdir("run")
        monkeypatch.setenv("PLATFORM_FOLDER", str(folder))
        monkeypatch.setenv("PLATFORM_WORKPLACE", str(folder))
        pytester.makefile(".feature", some="Feature: 1. Some\n" + "\n".join(scenarios))
        pytester.makepyfile(test_some=steps)
        pytester.makeini("[pytest]\nmarkers =\n  mutates\n  destructive\n")
        plugins = (
            "-p",
            "no:cacheprovider",
            "-p",
            "harness.runs.plugins.choosing",
            "-p",
            "harness.runs.plugins.recording",
        )
        pytester.inline_run(*plugins, *options, no_reraise_ctrlc=True)
        return fold(read_events(folder / "events.jsonl"))

    return execute


def scenario(title: str, *steps: str, tag: str = "") -> str:
    lines = [f"  @{tag}"] if tag else []
    return "\n".join([*lines, f"  Scenario: {title}", *(f"    {step}" for step in steps)])


NEXT = scenario("Next", "Then all is well")


def steps(document: dict[str, Any], number: int = 0) -> list[str]:
    return [step["outcome"] for step in document["scenarios"][number]["steps"]]


def outcomes(document: dict[str, Any]) -> dict[str, str]:
    return {it["title"]: it["outcome"] for it in document["scenarios"]}


@pytest.mark.parametrize(
    ("step", "outcome", "of_step", "status"),
    [
        ("something is wrong", "failed", "failed", 1),
        ("a claim is false", "failed", "failed", 1),
        ("the harness stumbles", "failed", "failed", 3),
        ("nobody knows this step", "failed", "failed", 3),
        ("the step is skipped", "not_run", "interrupted", None),
        ("the step ends the program", "failed", "interrupted", 3),
    ],
)
def test_however_a_step_ends_it_is_in_the_record_as_that(
    executed: Callable[..., dict[str, Any]], step: str, outcome: str, of_step: str, status: int | None
) -> None:
    document = executed(scenario("It", "When something is changed", f"Then {step}", "And all is well"), NEXT)

    assert outcomes(document) == {"It": outcome, "Next": "passed"}
    # what comes after it was not run, and is not said to have failed
    assert steps(document) == ["passed", of_step, "not_run"]
    error = document["scenarios"][0]["steps"][1]["error"] or document["scenarios"][0].get("error") or {}
    assert error.get("status") == status


def test_what_a_fault_says_is_in_the_record(executed: Callable[..., dict[str, Any]]) -> None:
    error = executed(scenario("It", "Then something is wrong"))["scenarios"][0]["steps"][0]["error"]

    assert {name: error[name] for name in ("message", "expected", "seen", "where", "paste")} == {
        "message": "no unit runs",
        "expected": "a unit",
        "seen": "none",
        "where": "coreos-1",
        "paste": "fleetctl list-units",
    }


def test_a_skip_gives_its_reason(executed: Callable[..., dict[str, Any]]) -> None:
    assert "not today" in executed(scenario("It", "Then the step is skipped"))["scenarios"][0]["reason"]


@pytest.mark.parametrize(
    ("step", "of_step"), [("pytest is told to exit", "failed"), ("somebody presses Ctrl-C", "interrupted")]
)
def test_what_is_cut_off_stays_interrupted_and_what_follows_is_not_reached(
    executed: Callable[..., dict[str, Any]], step: str, of_step: str
) -> None:
    document = executed(scenario("It", "When something is changed", f"Then {step}"), NEXT)

    assert outcomes(document) == {"It": "interrupted", "Next": "not_run"}
    assert steps(document) == ["passed", of_step]
    assert judge(document).status != 0


def test_a_fixture_that_fails_before_the_first_step(executed: Callable[..., dict[str, Any]]) -> None:
    document = executed(scenario("It", "Then all is well"), steps=STEPS + BROKEN_FIXTURE)

    assert outcomes(document) == {"It": "error"}
    assert document["scenarios"][0]["error"]["status"] == 6
    assert steps(document) == ["not_run"]


def test_a_fixture_that_a_step_asks_for_and_that_fails_has_the_status_of_its_error(
    executed: Callable[..., dict[str, Any]],
) -> None:
    document = executed(scenario("It", "Given a ground that cannot be made", "Then all is well"))

    assert outcomes(document) == {"It": "failed"}
    assert document["scenarios"][0]["steps"][0]["error"]["status"] == 6


@pytest.mark.parametrize("tag", ["mutates", "destructive"])
def test_what_could_not_be_put_back_stops_what_stands_on_it(executed: Callable[..., dict[str, Any]], tag: str) -> None:
    document = executed(scenario("Broken", "When something is broken that stays broken", tag=tag), NEXT)

    assert outcomes(document) == {"Broken": "error", "Next": "not_run"}
    assert steps(document) == ["passed"]  # it is the undoing that failed
    assert document["scenarios"][0]["error"]["message"] == "coreos-1 cannot be switched on again"
    assert document["scenarios"][1]["reason"] == 'stands on "Broken", which failed'


def test_what_only_states_and_fails_stops_nothing(executed: Callable[..., dict[str, Any]]) -> None:
    assert outcomes(executed(scenario("It", "Then something is wrong"), NEXT)) == {"It": "failed", "Next": "passed"}


@pytest.mark.parametrize("tag", ["mutates", "destructive"])
def test_a_read_only_run_executes_nothing_that_changes_something(
    executed: Callable[..., dict[str, Any]], tag: str
) -> None:
    document = executed(scenario("Changes", "When something is changed", tag=tag), NEXT, options=("--read-only",))

    assert outcomes(document) == {"Changes": "not_run", "Next": "passed"}
    assert steps(document) == ["not_run"]
    assert document["scenarios"][0]["reason"] == "changes something, and this run changes nothing"


def test_another_run_executes_it(executed: Callable[..., dict[str, Any]]) -> None:
    assert outcomes(executed(scenario("Changes", "When something is changed", tag="mutates"))) == {"Changes": "passed"}


def test_what_is_planned_is_in_the_record_whatever_happens(executed: Callable[..., dict[str, Any]]) -> None:
    document = executed(scenario("It", "When something is changed", "Then all is well", tag="mutates"))

    planned = document["scenarios"][0]
    assert (planned["feature_title"], planned["tags"], planned["line"]) == ("1. Some", ["mutates"], 3)
    assert [(step["keyword"], step["text"]) for step in planned["steps"]] == [
        ("When", "something is changed"),
        ("Then", "all is well"),
    ]
    assert Path(planned["feature"]).name == "some.feature"
