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

scenarios("some.feature")

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

    def execute(
        *scenarios: str, options: tuple[str, ...] = (), steps: str = STEPS, unbound: str = ""
    ) -> dict[str, Any]:
        folder = pytester.mkdir("run")
        if unbound:
            (pytester.mkdir("features") / "02.feature").write_text(f"Feature: 2. Other\n{unbound}\n")
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


# -- what pytest says and what was executed ---------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--setup-plan", "--setup-only", "--collect-only"])
@pytest.mark.parametrize(
    "steps_of_it", [("Then all is well",), ("When something is changed", "Then something is wrong")]
)
def test_a_scenario_whose_steps_never_ran_did_not_pass(
    executed: Callable[..., dict[str, Any]], option: str, steps_of_it: tuple[str, ...]
) -> None:
    document = executed(scenario("It", *steps_of_it), NEXT, options=(option,))

    assert {it["outcome"] for it in document["scenarios"]} <= {"error", "not_run"}
    assert set(steps(document)) == {"not_run"}
    assert judge(document).status == 3


def test_a_scenario_without_a_step_proves_nothing(executed: Callable[..., dict[str, Any]]) -> None:
    assert outcomes(executed(scenario("It"), NEXT)) == {"It": "error", "Next": "passed"}


OUTLINE = """
  Scenario Outline: At <name>
    When something is <done>
    Then all is well

    Examples: these look on
      | name | done |
      | coreos-0 | changed |

    {tag}
    Examples: these break
      | name | done |
      | coreos-1 | changed |
      | coreos-2 | changed |
"""
RULE = """
  {tag}
  Rule: Broken

    Background:
      When something is changed

    Scenario: In a rule
      Then all is well
"""


@pytest.mark.parametrize("tag", ["mutates", "destructive"])
def test_tags_of_every_level_are_tags(executed: Callable[..., dict[str, Any]], tag: str) -> None:
    parts = (NEXT, OUTLINE.format(tag=f"@{tag}"), RULE.format(tag=f"@{tag}"))
    document = executed(*parts, options=("--read-only",))

    assert {it["title"]: (it["outcome"], it["tags"]) for it in document["scenarios"]} == {
        "Next": ("passed", []),
        "At coreos-0": ("passed", []),
        "At coreos-1": ("not_run", [tag]),
        "At coreos-2": ("not_run", [tag]),
        "In a rule": ("not_run", [tag]),
    }
    assert [step["text"] for step in document["scenarios"][1]["steps"]] == ["something is changed", "all is well"]


def test_what_stands_in_the_features_and_is_not_collected_is_an_error(
    executed: Callable[..., dict[str, Any]],
) -> None:
    """A feature that nothing binds, be it of outlines and rules."""
    written = scenario("Nobody runs me", "When something is changed") + OUTLINE.format(tag="") + RULE.format(tag="")
    document = executed(NEXT, unbound=written)

    expected = ["Nobody runs me", "At coreos-0", "At coreos-1", "At coreos-2", "In a rule"]
    assert outcomes(document) == {"Next": "passed", **dict.fromkeys(expected, "error")}
    assert judge(document).status == 3
    error = document["scenarios"][1]["error"]
    assert error["message"] == "it stands in the features, and pytest did not collect it"


def test_what_somebody_left_out_is_none(executed: Callable[..., dict[str, Any]]) -> None:
    two = scenario("It", "Then something is wrong"), NEXT
    assert outcomes(executed(*two, options=("-k", "next"))) == {"It": "not_run", "Next": "passed"}


def test_what_somebody_named_is_all_there_is(executed: Callable[..., dict[str, Any]]) -> None:
    document = executed(NEXT, scenario("It", "Then something is wrong"), options=("test_some.py::test_next",))
    assert outcomes(document) == {"Next": "passed"}


@pytest.mark.parametrize(
    "other",
    [NEXT, "  Rule: Elsewhere\n" + NEXT, "  Rule: With one\n" + scenario("Other", "Then all is well") + "\n" + NEXT],
)
def test_a_title_that_stands_twice_is_refused(
    executed: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str], other: str
) -> None:
    document = executed(scenario("It", "Then all is well"), NEXT, other)

    assert document["scenarios"] == []
    (said,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("ERROR"))
    line = 6 + other.count("\n", 0, other.index("Scenario: Next"))
    assert said.endswith(f'/some.feature: "Next" is the title of lines 4 and {line}: each needs its own')
