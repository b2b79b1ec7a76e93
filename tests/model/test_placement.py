"""Where fleet lets a unit run: cases of real unit files with what the real fleet makes of them, and its patterns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.model.placement import Requirements, matches
from harness.rules.schedule import unit_is_placed, unit_is_reported
from harness.snapshot.data import (
    Fleet,
    FleetMachine,
    FleetUnit,
    Intended,
    IntendedUnit,
    Machine,
    Outside,
    Snapshot,
)

CASES = sorted((Path(__file__).parent.parent / "cases/placement").glob("*.json"))
IDS = {name: 16 * pair for name, pair in (("m0", "a0"), ("m1", "b1"), ("m2", "c2"))}
# Case -> the units that are wrongly placed, and why; the others' are right
WRONG = {
    "conflicts-with-a-global-unit-there": {
        "amb.service": "conflicts with db.service",
        "db.service": "with amb.service",
    },
    "conflicts-with-pattern": {"db.service": "with web-a.service", "web-a.service": "with db.service"},
    "machineid-twice-first-counts": {"db.service": "MachineID or MachineMetadata forbids"},
    "machineof-n-service": {"b@1.timer": "not where b@1.service is"},
    "machineof-p-of-a-timer-elsewhere": {"backup.timer": "not where backup.service is"},
    "machineof-p-socket-like-elsewhere": {"web-reg@1.service": "not where web@1.service is"},
    "machineof-whose-unit-is-not-in-the-registry": {"reg.service": "can be placed nowhere"},
    "the-other-s-conflict-only-asked-of-the-one-without": {"db.service": "with web.service", "web.service": "with db."},
    "x-conditionmachineid-other-machine": {"db.service": "forbids"},
    "x-conditionmachinemetadata-disk-ssd-on-a-machine-without": {"db.service": "forbids"},
    "x-conditionmachineof-sidekick-elsewhere": {"reg.service": "not where app.service is"},
    "x-conflicts-on-one-machine": {"db@1.service": "with db@2.service", "db@2.service": "with db@1.service"},
}


def objections(case: dict[str, Any]) -> dict[str, str]:
    """Unit -> what speaks against where fleet has it."""
    nothing = Outside(ports=None, names=None, sites={}, stranger=None, walks=None, backing={})
    placed = {unit["name"]: [unit["machineID"]] for unit in case["units"] if unit["machineID"]}
    reported = {name: [IDS[it] for it in on] for name, on in case["reported_by"].items()}
    units = {
        unit["name"]: FleetUnit(
            desired=unit["desiredState"],
            current=unit["currentState"],
            machine_id=unit["machineID"],
            options=tuple((option["section"], option["name"], option["value"]) for option in unit["options"]),
        )
        for unit in case["units"]
    }
    now = Snapshot(
        number=1, asked=0.0, seconds=0.0, fleet=Fleet(
            asked_of="m0",
            machines={
                it: FleetMachine("192.0.2.1", {"name": name, **case["metadata"].get(name, {})})
                for name, it in IDS.items()
            },
            units=units,
            states={name: tuple(on) for name, on in (placed | reported).items()},
        ),
        intended=Intended(
            machines=dict.fromkeys(IDS, "192.0.2.1"), entry_point="192.0.2.1", entry_points=(), sites={},
            name_server="", members_at_most=5, units={name: IntendedUnit((), "") for name in units}, started=True,
            deployed=(), helpers={}, sshd={}, listening=(), ports=(), closed=(),
        ),
        machines={name: Machine(asked=0.0, seconds=0.0, machine_id=it) for name, it in IDS.items()},
        services=None, deployed=None, outside=nothing,
    )  # fmt: skip
    return {wrong.subject.name: wrong.seen for wrong in [*unit_is_placed(now), *unit_is_reported(now)]}


def test_every_case_that_is_wrong_is_a_case() -> None:
    assert set(WRONG) <= {path.stem for path in CASES}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case_is_judged_as_fleet_would(path: Path) -> None:
    case = json.loads(path.read_text())
    wrong = WRONG.get(path.stem, {})
    found = objections(case)

    assert (case["right"] == "no objection") is (not wrong)
    assert set(found) == set(wrong)
    assert all(text in found[unit] for unit, text in wrong.items()), found


def registered(name: str, machine: str, *options: tuple[str, str], current: str = "launched") -> dict[str, Any]:
    return {
        "name": name,
        "desiredState": "launched",
        "currentState": current,
        "machineID": IDS.get(machine, ""),
        "options": [{"section": "X-Fleet", "name": option, "value": value} for option, value in options],
    }


def judged(*units: dict[str, Any], **reported: list[str]) -> dict[str, str]:
    return objections({"units": list(units), "metadata": {}, "reported_by": reported})


def test_a_unit_that_replaces_another_is_not_beside_it() -> None:
    new, old = registered("new.service", "m0", ("Replaces", "old.*")), registered("old.service", "m0")

    assert judged(new, old) == {
        "new.service": "replaces old.service, which is there too",
        "old.service": "is replaced by new.service, which is there too",
    }
    assert judged(new, registered("old.service", "m1")) == {}


def test_two_that_replace_each_other_stay() -> None:
    one, two = registered("a.service", "m0", ("Replaces", "b.*")), registered("b.service", "m0", ("Replaces", "a.*"))

    assert judged(one, two) == {}


def test_a_unit_that_is_stopped_for_good_is_beside_nobody() -> None:
    other = registered("b.service", "m0") | {"desiredState": "inactive"}

    assert "a.service" not in judged(registered("a.service", "m0", ("Conflicts", "b.service")), other)


@pytest.mark.parametrize(
    ("values", "is_global"),
    [(["true", ""], False), (["", "yes"], True), (["on", "nonsense"], False), (['"true" "no"'], False)],
)
def test_of_several_values_of_global_the_last_counts(values: list[str], is_global: bool) -> None:
    options = [("X-Fleet", "Global", value) for value in values]

    assert Requirements.of("a.service", options).is_global is is_global


def test_specifiers_are_replaced_in_every_value() -> None:
    options = [
        ("X-Fleet", "MachineOf", "%p.service"),
        ("X-Fleet", "Conflicts", "%p@*.service %n"),
        ("X-Fleet", "MachineMetadata", '"name=%i" "at=%N"'),
        ("X-Fleet", "Replaces", "%H-%i"),
    ]
    wanted = Requirements.of("web@2.service", options)

    assert wanted.peers == ("web.service",)
    assert wanted.conflicts == ("web@*.service", "web@2.service")
    assert wanted.metadata == {"name": {"2"}, "at": {"web@2"}}
    assert wanted.replaces == ("%H-2",)
    assert Requirements.of("none", options).peers == ("%p.service",)


@pytest.mark.parametrize(
    ("pattern", "name", "matched"),
    [
        ("web@*.service", "web@1.service", True),
        ("web@?.service", "web@12.service", False),
        ("*", "a/b", False),
        ("[a-c].service", "b.service", True),
        ("[^a-c].service", "b.service", False),
        ("[!a].service", "b.service", False),  # fnmatch's way to say "not"
        ("[!a].service", "!.service", True),
        ("\\*.service", "*.service", True),
        ("[a", "a", False),
        ("[]a]", "a", False),
        ("[^]", "^", False),
        ("a\\", "a\\", False),
        ("[c-a]", "b", False),
    ],
)
def test_patterns_are_gos(pattern: str, name: str, matched: bool) -> None:
    assert matches(pattern, name) is matched
