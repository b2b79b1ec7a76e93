"""Every rule, on a cluster where nothing is wrong, and where one thing is."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from harness.rules.finding import ALL, LAYERS, RULES, Finding
from harness.rules.judging import judge
from tests.rules.cases import CASES, ID, Changes, look
from tests.transcripts.snapshots import change, changed, green, later, silent

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
        assert not finding.paste.startswith("ssh -F") or len(shlex.split(finding.paste)) == 5


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

    # what fleet has there does not run as far as anybody knows
    assert {finding.rule for finding in machines} == {"machine-answers", "unit-runs"}
    assert {finding.subject.machine for finding in machines} == {"coreos-1"}


BOOTS = {"etcd": None, "fleet": None, "units.etcd.service.active": "inactive", "units.fleet.service.active": "inactive"}
LOADED = ("unit-is-held", "unit-is-wanted", "unit-is-placed", "unit-is-reported")
UNITS = ("fleet-lists", "unit-is-held", "unit-is-wanted", "unit-runs", "container-runs")


@pytest.mark.parametrize(
    ("unknown", "rules"),
    [
        ({"fleet": None}, UNITS),
        ({"machines.coreos-1.units": {}}, UNITS),
        ({"machines.coreos-1.containers": None}, UNITS),
        (lambda now: silent(now, "coreos-2"), UNITS),
        (lambda now: silent(now, *ID), UNITS),
        ({"services": None}, ("registrations-are-known", "instance-is-registered", "registration-is-right")),
        ({f"machines.{name}.containers": None for name in ID}, ("instance-is-registered",)),
        ({"deployed": None}, ("deployment-is-remembered", "contents-are-held")),
        ({"machines.coreos-1.etcd": None}, ("etcd-is-healthy",)),
        ({"machines.coreos-1.fleet": None}, ("fleet-answers",)),
        # a machine that boots: its services are not there yet
        (
            {f"machines.{name}.{part}": value for name in ID for part, value in BOOTS.items()},
            ("etcd-is-healthy", "etcd-members-are-right", "etcd-has-one-leader"),
        ),
        (
            {"fleet": None} | {f"machines.{name}.{part}": value for name in ID for part, value in BOOTS.items()},
            ("fleet-answers", "fleet-lists", "fleet-views-agree"),
        ),
        ({f"fleet.units.{unit}.desired": "inactive" for unit in ("blog.service", "entry.service")}, UNITS),
        ({"intended.started": False, "fleet.units.blog.service.desired": "inactive"}, LOADED),
        ({"outside.walks.blog.failed": "status 503"}, ("site-is-whole",)),
        ({"outside.walks.blog.failed": "status 503"}, ("site-is-as-deployed",)),
        ({"outside.walks.blog.files": 0}, ("site-is-as-deployed",)),
        ({"outside.walks.blog.pages": 0}, ("sites-are-apart",)),
    ],
)
def test_what_is_not_known_does_not_hold(unknown: Any, rules: tuple[str, ...]) -> None:
    """A look that a busy machine answered in part must not pass for one where all is well."""
    now = unknown(green()) if callable(unknown) else changed(green(), unknown)

    assert judge([now]).of(rules).all
