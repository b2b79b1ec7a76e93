"""What a run took beside what it may take."""

from __future__ import annotations

from typing import Any

import pytest

from harness.reports.measures import measured, over

APPLY = "terraform -chdir=infra/$TARGET apply platform.plan"


def run(
    seconds: float, *, machines: int = 3, outcome: str = "passed", line: str | None = APPLY, target: str = "local"
) -> dict[str, Any]:
    steps = [{"seconds": 1.0}, {"seconds": seconds - 1.0}, {"seconds": None}]
    scenarios = [
        {"id": "plan", "tags": [], "outcome": "passed", "seconds": 1.0},
        {"id": "apply", "tags": ["mutates"], "outcome": outcome, "seconds": seconds, "steps": steps},
        {"id": "lost", "tags": ["destructive"], "outcome": "passed", "seconds": 500.0},
    ]
    commands = [
        {"scenario": "plan", "line": "terraform -chdir=infra/$TARGET plan -out=platform.plan"},
        {"scenario": "plan", "line": None},
        {"scenario": "apply", "line": line},
        {"scenario": "lost", "line": APPLY},
    ]
    remotes = [{"scenario": "apply", "machine": f"coreos-{number}"} for number in range(machines)]
    return {"target": target, "scenarios": scenarios, "commands": commands, "remotes": remotes * 2}


def test_a_bring_up_is_measured_with_its_bound() -> None:
    assert [str(measure) for measure in measured(run(2.44))] == [
        "from apply to fleet-ready 2.4 s (the harness's own bound: 3 s)",
        "scenarios that break nothing 3.4 s (the harness's own bound: 120 s)",
    ]
    assert over(run(2.44)) == []


def test_machines_of_another_target_have_no_bounds() -> None:
    assert measured(run(200.0, target="hosts")) == []


def test_the_look_behind_the_scenario_is_no_part_of_the_bring_up() -> None:
    document = run(2.0)
    document["scenarios"][1]["seconds"] = 9.0

    assert [measure.seconds for measure in measured(document)] == [2.0, 10.0]


@pytest.mark.parametrize(("machines", "bound"), [(1, 3.0), (3, 3.0), (9, 6.0)])
def test_a_larger_cluster_may_take_longer(machines: int, bound: float) -> None:
    assert measured(run(2.0, machines=machines))[0].bound == bound


def test_what_is_over_its_bound_is_named() -> None:
    assert [measure.what for measure in over(run(130.0))] == [
        "from apply to fleet-ready",
        "scenarios that break nothing",
    ]


@pytest.mark.parametrize("outcome", ["failed", "error", "interrupted", "not_run"])
def test_what_did_not_pass_is_no_measure(outcome: str) -> None:
    assert measured(run(1.0, outcome=outcome)) == []


def test_a_run_that_builds_nothing_measures_nothing() -> None:
    document = run(1.0)

    assert measured(document | {"commands": []}) == measured(document | {"scenarios": []}) == []
