"""What a check must leave as it was: what renews itself is not in it, and every change that somebody made is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.drivers.terraform import Terraform
from harness.errors import AnswerNotUnderstood
from harness.runs.fingerprint import fingerprint
from harness.seams.ssh import MachineUnreachable
from tests.fakes import FakeRunner
from tests.transcripts.machines import NAMES, RecordedMachines

OWN, FLEETS = "etcd's lasting keys", "fleet's units and placements"
NOT_FOUND = '{"errorCode":100,"message":"Key not found","cause":"/_coreos.com","index":12}\n'


def key(name: str, index: int, **more: Any) -> dict[str, Any]:
    return {"key": name, "value": "x", "modifiedIndex": index, "createdIndex": 1, **more}


def folder(name: str, *nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"key": name, "dir": True, "modifiedIndex": 999, "createdIndex": 1, "nodes": list(nodes), **more}


def listing(*nodes: dict[str, Any]) -> str:
    """etcd's answer, which ends with a newline."""
    return json.dumps({"action": "get", "node": folder("/", *nodes)}) + "\n"


def answer(own: str, fleets: str) -> Callable[[str], str]:
    """What etcd answers to the two questions."""
    return lambda command: fleets if "_coreos.com" in command else own


SERVICES = (key("/services/blog", 20), key("/services/jpblog", 22))
UNITS = (folder("/_coreos.com/fleet/unit", key("/_coreos.com/fleet/unit/blog", 31)),)
LEASES = (
    key("/alive", 50, ttl=10, expiration="2026-08-01T00:00:00Z"),
    folder("/machines", key("/machines/a", 51), ttl=30),
)


@pytest.fixture
def machines() -> RecordedMachines:
    machines = RecordedMachines().on("v2/keys", answer(listing(*SERVICES), listing(*UNITS)))
    for name in NAMES:
        machines.on("boot_id", f"boot-of-{name}\n4711\n", name)
    return machines


@pytest.fixture
def terraform(tmp_path: Path, runner: FakeRunner) -> Terraform:
    (tmp_path / "terraform.tfstate").write_text("{}")
    runner.on("terraform state pull", '{"version": 4, "serial": 9}')
    return Terraform(runner, tmp_path, {})


# -- what does not answer ------------------------------------------------------------------------------------------


def test_a_silent_machine_is_said_to_be_silent(machines: RecordedMachines) -> None:
    machines.on("boot_id", MachineUnreachable("no answer over SSH"), "coreos-1")
    found = fingerprint(machines, NAMES, None)

    assert found["boot of coreos-1"] == "no answer"
    assert found["boot of coreos-2"] == "boot-of-coreos-2\n4711"


def test_a_machine_that_is_known_to_be_silent_is_not_waited_for(machines: RecordedMachines) -> None:
    found = fingerprint(machines, ("coreos-0", "coreos-2"), None)

    assert found["boot of coreos-1"] == "no answer"
    assert "coreos-1" not in {name for name, _ in machines.asked}


def test_a_silent_entry_point_knows_no_keys(machines: RecordedMachines) -> None:
    machines.on("v2/keys", MachineUnreachable("no answer over SSH"))
    found = fingerprint(machines, NAMES, None)

    assert (found[OWN], found[FLEETS]) == ("no answer", "no answer")


@pytest.mark.parametrize(
    "own", ["", "\n", "404 page not found\n", NOT_FOUND, "[]\n", '{"node": 7}\n', '{"node": {"key": "/x"}}\n']
)
def test_an_etcd_that_does_not_list_its_keys_is_silent_of_those_only(machines: RecordedMachines, own: str) -> None:
    machines.on("v2/keys", answer(own, listing(*UNITS)))
    found = fingerprint(machines, NAMES, None)

    assert (found[OWN], found[FLEETS]) == ("no answer", "1 keys, the newest of index 31")


def test_a_cluster_without_fleets_keys_is_silent_of_those_only(machines: RecordedMachines) -> None:
    machines.on("v2/keys", answer(listing(*SERVICES), NOT_FOUND))
    found = fingerprint(machines, NAMES, None)

    assert (found[OWN], found[FLEETS]) == ("2 keys, the newest of index 22", "no answer")


def test_a_terraform_without_a_serial_is_said(
    machines: RecordedMachines, terraform: Terraform, runner: FakeRunner
) -> None:
    runner.on("terraform state pull", "{}")

    with pytest.raises(AnswerNotUnderstood, match="terraform state pull"):
        fingerprint(machines, NAMES, terraform)


# -- what is in it -------------------------------------------------------------------------------------------------


def test_a_fingerprint_names_all_that_must_stay(machines: RecordedMachines, terraform: Terraform) -> None:
    assert fingerprint(machines, NAMES, terraform) == {
        **{f"boot of {name}": f"boot-of-{name}\n4711" for name in NAMES},
        OWN: "2 keys, the newest of index 22",
        FLEETS: "1 keys, the newest of index 31",
        "Terraform's serial": "9",
    }


def test_without_terraform_there_is_no_serial(machines: RecordedMachines, tmp_path: Path, runner: FakeRunner) -> None:
    for terraform in (None, Terraform(runner, tmp_path / "without a state", {})):
        assert "Terraform's serial" not in fingerprint(machines, NAMES, terraform)
    assert runner.calls == []


@pytest.mark.parametrize("renewed", [20, 60, 1000])
def test_keys_with_a_time_to_live_do_not_count(machines: RecordedMachines, renewed: int) -> None:
    before = fingerprint(machines, NAMES, None)
    leases = (key("/alive", renewed, ttl=10), folder("/machines", key("/machines/a", renewed + 1), ttl=30))
    machines.on("v2/keys", answer(listing(*SERVICES, *leases), listing(*leases, *UNITS)))

    assert fingerprint(machines, NAMES, None) == before


@pytest.mark.parametrize(
    ("own", "fleets", "changed"),
    [
        pytest.param((*SERVICES, key("/new", 40)), UNITS, OWN, id="a key came"),
        pytest.param(SERVICES[:1], UNITS, OWN, id="a key went"),
        pytest.param((SERVICES[0], key("/services/jpblog", 41)), UNITS, OWN, id="a key was set again"),
        pytest.param((*SERVICES, folder("/x", folder("/x/y", key("/x/y/z", 42)))), UNITS, OWN, id="a key far below"),
        pytest.param(SERVICES, (*UNITS, key("/_coreos.com/fleet/job", 43)), FLEETS, id="fleet placed a unit"),
        pytest.param(SERVICES, (), FLEETS, id="fleet's units went"),
    ],
)
def test_keys_without_a_time_to_live_count(
    machines: RecordedMachines, own: tuple[dict[str, Any]], fleets: tuple[dict[str, Any]], changed: str
) -> None:
    before = fingerprint(machines, NAMES, None)
    machines.on("v2/keys", answer(listing(*own, *LEASES), listing(*fleets)))
    after = fingerprint(machines, NAMES, None)

    assert [name for name in before if before[name] != after[name]] == [changed]


def test_a_machine_that_was_booted_again_is_seen(machines: RecordedMachines) -> None:
    before = fingerprint(machines, NAMES, None)
    machines.on("boot_id", "boot-of-coreos-1\n4712\n", "coreos-1")
    after = fingerprint(machines, NAMES, None)

    assert [name for name in before if before[name] != after[name]] == ["boot of coreos-1"]


def test_an_etcd_without_keys_has_none(machines: RecordedMachines) -> None:
    machines.on("v2/keys", answer(json.dumps({"node": {"dir": True}}) + "\n", listing(*LEASES)))
    found = fingerprint(machines, NAMES, None)

    assert (found[OWN], found[FLEETS]) == ("0 keys, the newest of index 0",) * 2


def test_a_cluster_without_a_way_in_is_silent(machines: RecordedMachines, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(self: RecordedMachines) -> str:
        raise MachineUnreachable("the entry point coreos-0 does not answer over SSH: timed out")

    monkeypatch.setattr(RecordedMachines, "entry_point", property(nobody))

    assert fingerprint(machines, NAMES, None)[OWN] == fingerprint(machines, NAMES, None)[FLEETS] == "no answer"
