"""Every rule says which parts of a snapshot it is judged by: it makes nothing of another, and passes without none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
from msgspec.structs import replace

from harness.rules.finding import RULES, Rule
from harness.rules.judging import judge
from harness.rules.machines import OF_MACHINES
from harness.snapshot import look as looking
from harness.snapshot.data import PARTS, Machine, Snapshot
from tests.rules.cases import CASES, look
from tests.transcripts.snapshots import change, green, silent


class Untouchable:
    """In the place of a part: it raises for whoever makes anything of it."""


def _raises(*_: object) -> NoReturn:
    raise AssertionError("it was not to be read")


for _name in ("getattr", "iter", "bool", "len", "eq", "ne", "hash", "contains", "getitem", "str", "format", "lt", "gt",
              "le", "ge", "add", "sub", "mul", "rmul", "truediv", "abs", "float", "int"):  # fmt: skip
    setattr(Untouchable, f"__{_name}__", _raises)

# Part of a machine's answer -> its fields, and what they are where it is missing
FIELDS: dict[str, dict[str, Any]] = {
    "identity": {"machine_id": "", "boot": "", "host_key": "", "clock_ahead": 0.0},
    "system": {"state": "", "failed": ()}, "units": {"units": {}}, "containers": {"containers": None},
    "apps": {"apps": {}}, "ambassadors": {"ambassadors": {}}, "routes": {"routes": {}}, "etcd": {"etcd": None},
    "fleet": {"fleet": None}, "reached": {"reached": {}}, "listening": {"listening": ()}, "filter": {"filter": ""},
    "sshd": {"sshd": {}}, "room": {"rooms": {}, "load": 0.0, "processors": 1}, "contents": {"contents": {}},
    "helpers": {"helpers": {}}, "journal": {"journal": ()}, "images": {"images": None},
    "ruleset": {"foreign_rules": ()}, "operator": {"operator": None},
}  # fmt: skip
WHOLE = {"fleet-units": "fleet", "registrations": "services", "deployed": "deployed", "plan": "plan"}
OUTSIDE = {name: name for name in ("ports", "names", "walks", "kernel", "sites", "stranger", "backing", "keys")}
OUTSIDE["manifests"] = "images"
# those of which something is always told, be it that nobody answered
TOLD = {"sites", "stranger", "backing", "keys", "manifests"}
ABSENT: dict[str, Any] = {"sites": {}, "backing": {}, "manifests": {}}
# everybody names machines by it; nothing but that is made of it where it is not declared
NAMING = "identity"
EVERY = (*FIELDS, "texts", *WHOLE, *OUTSIDE)


def taken_from(machine: Machine, part: str, fields: Mapping[str, Any]) -> Machine:
    if part == "texts":
        return replace(machine, units={name: replace(unit, **fields) for name, unit in machine.units.items()})
    return replace(machine, **fields)


def without(now: Snapshot, part: str, instead: Callable[[Any], Any], machines: Iterable[str] = ()) -> Snapshot:
    """A snapshot with something `instead` of a part; `instead` is given what a missing one is."""
    if part in WHOLE:
        return replace(now, **{WHOLE[part]: instead(None)})
    if part in OUTSIDE:
        return replace(now, outside=replace(now.outside, **{OUTSIDE[part]: instead(ABSENT.get(part))}))
    fields = {name: instead(value) for name, value in FIELDS.get(part, {"text": ""}).items()}
    names = machines or now.answering
    cut = {name: taken_from(now.machines[name], part, fields) for name in names}
    return replace(now, machines={**now.machines, **cut})


def missing(value: Any) -> Any:
    return value


def untouchable(_: Any) -> Any:
    return Untouchable()


def subjects(rule: Rule, first: Snapshot, now: Snapshot) -> list[str]:
    found = rule.finds([now]) if rule.excuses else rule.finds(first, now) if rule.compares else rule.finds(now)
    return sorted(str(wrong.subject) for wrong in found)


def differs(rule: Rule, case: Snapshot, part: str) -> bool:
    """Whether it matters to a rule that a part is not there."""
    expected = subjects(rule, green(), case)
    for instead in (missing,) if part == NAMING else (missing, untouchable):
        try:
            if subjects(rule, without(green(), part, instead), without(case, part, instead)) != expected:
                return True
        except AssertionError:
            return True
    return False


def snapshots(rule: str) -> list[Snapshot]:
    return [green(), *(look(changes) for changes, _ in CASES[rule])]


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_judged_by_the_parts_that_it_declares_and_by_no_other(name: str) -> None:
    rule = RULES[name]
    read = {part for part in EVERY if any(differs(rule, case, part) for case in snapshots(name))}

    assert read == set(rule.needs)


def test_the_parts_of_machines_are_those_that_they_are_asked_for() -> None:
    asked = Path(looking.__file__).with_name("collect.sh").read_text().partition('if [ "$whole"')[0]

    collected = {line.split()[1] for line in asked.splitlines() if line.startswith("part ")}
    assert set(OF_MACHINES) == {*collected, "operator"}
    assert set(OF_MACHINES) == {*FIELDS, "texts", "metrics"}
    assert all(set(rule.needs) <= set(EVERY) for rule in RULES.values())


@pytest.mark.parametrize(("name", "part"), [(rule.name, part) for rule in RULES.values() for part in rule.needs])
def test_no_rule_passes_without_a_part_that_it_needs(name: str, part: str) -> None:
    if part in TOLD:
        return
    for machine in green().machines if part in OF_MACHINES else ("",):
        now = without(green(), part, missing, [machine])
        if machine:
            now = change(now, f"machines.{machine}.missing", (part,))
        if now != green():  # no app runs on coreos-1
            assert judge([now]).of([name]).all


@pytest.mark.parametrize("name", [rule.name for rule in RULES.values() if set(rule.needs) & set(OF_MACHINES)])
def test_no_rule_of_machines_passes_where_one_is_silent(name: str) -> None:
    assert judge([silent(green(), "coreos-1")]).of([name]).all


@pytest.mark.parametrize("part", PARTS)
def test_what_was_not_asked_is_nothing_that_is_wrong(part: str) -> None:
    assert judge([replace(without(green(), part, missing), unasked=(part,))]).all == ()
    (finding, *others) = judge([without(green(), part, missing)]).all
    assert finding.absent == (part,) and {it.rule for it in others} <= {finding.rule}


def test_what_a_machine_did_not_tell_is_found_once_and_not_by_each_rule() -> None:
    now = change(without(green(), "units", missing, ["coreos-1"]), "machines.coreos-1.missing", ("units",))

    assert [str(finding) for finding in judge([now]).all] == [
        "machine coreos-1: expected an answer to every question, seen none of units"
    ]
