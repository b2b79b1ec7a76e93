"""Every rule, on a cluster where nothing is wrong, and where one thing is."""

from __future__ import annotations

import shlex

import pytest

from harness.rules.finding import ALL, LAYERS, RULES, Finding
from harness.rules.judging import judge
from tests.rules.cases import CASES, Changes, look
from tests.transcripts.snapshots import change, green, later, silent

TABLE = [(rule, *it) for rule, cases in CASES.items() for it in cases]
NAMES = [f"{rule}-{number}" for rule, cases in CASES.items() for number in range(len(cases))]


def findings(changes: Changes) -> list[Finding]:
    """What counts when a cluster that was green has been like this for longer than any rule's sources lag."""
    broken = look(changes)
    return list(judge([green(), later(broken, 1), later(broken, 20)]).findings)


def test_a_cluster_where_nothing_is_wrong() -> None:
    assert judge([green()]).all == ()
    assert judge([green(), later(green(), 60)]).all == ()


def test_a_cluster_of_which_nothing_is_intended_yet() -> None:
    bare = look(
        {
            "intended.units": {},
            "intended.started": False,
            "intended.deployed": (),
            "fleet.units": {},
            "fleet.states": {},
            "services": {},
            "deployed": {},
            "outside.ports": dict.fromkeys(green().machines, (22,)),
        }
    )
    for name in green().machines:
        bare = change(bare, f"machines.{name}.containers", None)
        bare = change(bare, f"machines.{name}.ambassadors", {})
        bare = change(bare, f"machines.{name}.contents", {})
        bare = change(bare, f"machines.{name}.units.docker.service.active", "inactive")

    assert judge([bare, later(bare, 60)]).all == ()


@pytest.mark.parametrize(("rule", "changes", "subjects"), TABLE, ids=NAMES)
def test_rule_finds(rule: str, changes: Changes, subjects: tuple[str, ...]) -> None:
    found = [finding for finding in findings(changes) if finding.rule == rule]

    assert sorted(str(finding.subject) for finding in found) == sorted(subjects)
    for finding in found:
        assert finding.layer == RULES[rule].layer
        assert finding.expected and finding.seen and finding.expected != finding.seen
        assert "\n" not in str(finding)
        assert not finding.paste.startswith("ssh") or len(shlex.split(finding.paste)) == 3


def test_every_rule_has_a_case_where_it_finds_something() -> None:
    assert set(CASES) == set(RULES)
    assert [rule for rule, cases in CASES.items() if not any(subjects for _, subjects in cases)] == []


@pytest.mark.parametrize("name", RULES)
def test_rule_is_described(name: str) -> None:
    rule = RULES[name]

    assert rule.layer in LAYERS and rule.claim and rule.lag >= 0
    assert set(rule.explains) <= {*RULES, ALL}


def test_rules_stand_in_the_order_of_their_layers() -> None:
    layers = [LAYERS.index(rule.layer) for rule in RULES.values()]

    assert layers == sorted(layers)


def test_nothing_is_said_of_a_machine_that_is_silent_but_that() -> None:
    machines = [finding for finding in judge([silent(green(), "coreos-1")]).findings if finding.subject.machine]

    assert [finding.rule for finding in machines] == ["machine-answers"]
