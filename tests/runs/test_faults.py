"""Faults that are seeded on purpose: noted before they are injected, and undone whatever happens."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from harness.drivers.shell import OperatorShell
from harness.errors import CommandFailed, Misconfigured, PlatformWrong
from harness.rules.finding import LAYERS
from harness.rules.judging import ORDER, RULES
from harness.runs.faults import Fault, Seeding, chosen_faults, is_left_over, read_faults, seeding_lock
from tests.fakes import FakeRunner

FAULT = Fault("etcd-stopped", "bootstrap", "coreos-1", "stop {machine}", "start {machine}", "rule", "etcd on {machine}")
NOTED = "fault-etcd-stopped.json"


class Machines:
    """Three machines; what is run on them is remembered."""

    addresses: ClassVar = {f"coreos-{number}": f"192.0.2.1{number}" for number in range(3)}
    names = tuple(addresses)

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []
        self.raises: BaseException | None = None

    def run(self, name: str, command: str) -> str:
        self.ran.append((name, command))
        if self.raises is not None and "stop" in command:
            raise self.raises
        return "an-id\n"


@pytest.fixture
def machines() -> Machines:
    return Machines()


@pytest.fixture
def seeding(tmp_path: Path, machines: Machines, runner: FakeRunner) -> Seeding:
    environment = {"HERE": "the operator's", "TARGET": "cloud"}
    shell = OperatorShell.open(runner, tmp_path / "operator.json", tmp_path, environment)
    (tmp_path / "infra/cloud").mkdir(parents=True)
    switches = {"off": ["cloud", "stop", "{run_id}-{machine}"], "on": ["cloud", "start", "{run_id}-{machine}"]}
    cuts = {way: ["cloud", way, "{machine}", "{others}"] for way in ("cut", "heal", "try")}
    (tmp_path / "infra/cloud/target.json").write_text(json.dumps({"power": switches, "network": cuts}))
    units = SimpleNamespace(machine_running=lambda unit: "coreos-2")
    cluster: Any = SimpleNamespace(machines=machines, units=units)
    return Seeding(tmp_path, cluster, shell, runner)


def test_fault_is_noted_while_it_lasts_and_undone_at_its_end(
    seeding: Seeding, machines: Machines, tmp_path: Path
) -> None:
    with seeding.injected(FAULT) as seeded:
        noted = json.loads((tmp_path / NOTED).read_text())
        assert (noted["undo"], seeded.subject) == ("start coreos-1", "etcd on coreos-1")
        assert machines.ran == [("coreos-1", "sh -c 'stop coreos-1'")]

    assert machines.ran[1:] == [("coreos-1", "sh -c 'start coreos-1'")]
    assert not (tmp_path / NOTED).exists()


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), PlatformWrong("the nightly failed"), RuntimeError("a bug")])
def test_fault_is_undone_however_it_ends(
    seeding: Seeding, machines: Machines, tmp_path: Path, raised: BaseException
) -> None:
    with pytest.raises(type(raised)), seeding.injected(FAULT):
        raise raised

    assert machines.ran[-1] == ("coreos-1", "sh -c 'start coreos-1'") and not (tmp_path / NOTED).exists()


def test_fault_that_was_injected_in_part_is_undone(seeding: Seeding, machines: Machines) -> None:
    machines.raises = CommandFailed(["stop"], 1, "", "half done")

    with pytest.raises(CommandFailed, match="half done"), seeding.injected(FAULT):
        pytest.fail("it was not injected")
    assert machines.ran[-1][1] == "sh -c 'start coreos-1'"


def test_fault_that_cannot_be_undone_stays_noted(seeding: Seeding, machines: Machines, tmp_path: Path) -> None:
    machines.raises = CommandFailed(["stop"], 1, "", "gone")
    fault = Fault("a", "unit", "coreos-1", "break", "stop it", "rule", "unit x")

    with pytest.raises(CommandFailed), seeding.injected(fault):
        pass
    assert is_left_over(tmp_path)


@pytest.mark.parametrize(
    ("on", "machine"),
    [("coreos-1", "coreos-1"), ("unit blog.service", "coreos-2"), ("other than unit blog.service", "coreos-0")],
)
def test_fault_is_seeded_where_it_says(seeding: Seeding, machines: Machines, on: str, machine: str) -> None:
    with seeding.injected(Fault("a", "unit", on, "break", "mend", "rule", "unit x on {machine}")) as seeded:
        assert seeded.subject == f"unit x on {machine}"
    assert {name for name, _ in machines.ran} == {machine}


def test_operators_fault_is_seeded_in_the_operators_shell(
    seeding: Seeding, machines: Machines, runner: FakeRunner, tmp_path: Path
) -> None:
    runner.on("bash -c")
    with seeding.injected(Fault("a", "unit", "operator", "fleetctl stop x", "fleetctl start x", "rule", "y")):
        pass

    assert runner.calls == ["bash -c 'fleetctl stop x'", "bash -c 'fleetctl start x'"]
    assert runner.details[0].environment["HERE"] == "the operator's" and machines.ran == []


def test_fault_of_several_machines_is_seeded_on_each(seeding: Seeding, machines: Machines) -> None:
    with seeding.injected(Fault("a", "unit", "coreos-1 coreos-2", "break", "mend", "rule", "unit x")):
        pass
    assert machines.ran == [(name, f"sh -c {verb}") for verb in ("break", "mend") for name in ("coreos-1", "coreos-2")]


def test_several_faults_at_once_are_undone_each(seeding: Seeding, machines: Machines, tmp_path: Path) -> None:
    with contextlib.ExitStack() as every:
        for name in ("one", "two"):
            every.enter_context(seeding.injected(Fault(name, "unit", "coreos-1", f"stop {name}", name, "rule", "x")))
        assert sorted(it.name for it in tmp_path.glob("fault-*")) == ["fault-one.json", "fault-two.json"]

    assert [command for _, command in machines.ran[2:]] == ["sh -c two", "sh -c one"]
    assert not list(tmp_path.glob("fault-*"))


def test_fault_is_undone_on_each_machine_whatever_another_says(seeding: Seeding, machines: Machines) -> None:
    with (
        pytest.raises(CommandFailed),
        seeding.injected(Fault("a", "unit", "coreos-1 coreos-2", "break", "stop it", "rule", "x")),
    ):
        machines.raises = CommandFailed(["stop"], 1, "", "gone")
    assert machines.ran[-2:] == [("coreos-1", "sh -c 'stop it'"), ("coreos-2", "sh -c 'stop it'")]


def test_switch_is_the_targets_own(seeding: Seeding, machines: Machines, runner: FakeRunner, tmp_path: Path) -> None:
    runner.on("cloud")
    lost = Fault("lost", "provision", "power of coreos-2", "off", "on", "rule", "machine coreos-2")

    assert seeding.means.lack(lost) == ""
    with seeding.injected(lost):
        pass
    assert runner.calls == [f"cloud {verb} {tmp_path.name}-coreos-2" for verb in ("stop", "start")]
    assert machines.ran == []


@pytest.mark.parametrize("on", ["network of coreos-2", "network of unit blog.service"])
def test_machine_is_cut_off_from_all_others(seeding: Seeding, runner: FakeRunner, tmp_path: Path, on: str) -> None:
    fault = Fault("cut-off", "provision", on, "cut", "heal", "rule", "network on {machine}")
    runner.on("cloud")
    with seeding.injected(fault) as seeded:
        assert (seeded.places, seeded.subject) == (("network of coreos-2",), "network on coreos-2")

    assert [call.argv for call in runner.details] == [
        ("cloud", way, "coreos-2", "192.0.2.10, 192.0.2.11") for way in ("cut", "heal")
    ]


def test_power_of_the_machine_of_a_unit(seeding: Seeding, runner: FakeRunner, tmp_path: Path) -> None:
    runner.on("cloud")
    with seeding.injected(
        Fault("lost", "provision", "power of unit blog.service", "off", "on", "r", "machine {machine}")
    ):
        pass

    assert runner.calls == [f"cloud {verb} {tmp_path.name}-coreos-2" for verb in ("stop", "start")]


def test_cut_that_the_kernel_refuses_is_not_seeded(seeding: Seeding, runner: FakeRunner) -> None:
    fault = Fault("cut-off", "provision", "network of coreos-2", "cut", "heal", "rule", "x")

    runner.on("cloud try")
    assert seeding.means.lack(fault) == ""
    runner.on("cloud try", status=1, stderr="no such expression")
    assert seeding.means.lack(fault) == "network of coreos-2 cannot be switched cut: no such expression"


@pytest.mark.parametrize(
    ("on", "inject", "lacking"),
    [
        ("power of coreos-2", "freeze", "this target has no way to switch power of coreos-2 freeze"),
        ("backing names", "off", "this target has no way to switch backing names off"),
        ("coreos-2", "off", ""),
        ("operator", "off", ""),
    ],
)
def test_what_a_target_cannot_do_is_said(seeding: Seeding, on: str, inject: str, lacking: str) -> None:
    assert seeding.means.lack(Fault("a", "provision", on, inject, "on", "rule", "x")) == lacking


def test_a_disk_that_others_write_to_is_not_filled(seeding: Seeding) -> None:
    fault = Fault("a", "bootstrap", "coreos-1", "fill", "empty", "rule", "x", fills="/var/lib/docker")

    assert (
        seeding.means.lack(fault) == "this target's machines have no disk of its own for /var/lib/docker, to be filled"
    )
    seeding.means._fills.append("/var/lib/docker")
    assert seeding.means.lack(fault) == ""


def test_every_fault_that_fills_says_which_disk() -> None:
    assert [fault.name for fault in read_faults() if "fallocate" in fault.inject and not fault.fills] == []


def test_what_a_killed_drill_left_is_undone(seeding: Seeding, machines: Machines, tmp_path: Path) -> None:
    killed = """
import os, sys
from pathlib import Path
from harness.runs.faults import seeding_lock
folder = Path(sys.argv[1])
with seeding_lock(folder) as alone:
    (folder / "fault-a.json").write_text('{"name": "a", "places": ["coreos-1"], "undo": "mend", "subject": "x"}')
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False)
    assert is_left_over(tmp_path)

    assert seeding.undo_noted() == "a"
    assert machines.ran == [("coreos-1", "sh -c mend")] and not is_left_over(tmp_path)
    assert seeding.undo_noted() == ""


def test_fault_of_a_drill_that_is_under_way_is_not_left_over(seeding: Seeding, tmp_path: Path) -> None:
    with seeding_lock(tmp_path) as alone, seeding.injected(FAULT):
        assert alone and not is_left_over(tmp_path)


def test_note_that_was_cut_off_is_none(seeding: Seeding, machines: Machines, tmp_path: Path) -> None:
    (tmp_path / "fault-a.json").write_text('{"name": "a", "mach')

    assert not is_left_over(tmp_path) and seeding.undo_noted() == "" and machines.ran == []


# -- the faults --------------------------------------------------------------------------------------------------------


def test_every_fault_names_a_rule_and_its_layer() -> None:
    faults = read_faults()

    assert len(faults) >= 26 and len({fault.name for fault in faults}) == len(faults)
    assert {fault.layer for fault in faults} == set(LAYERS) - {"config", "toolchain"}
    for fault in faults:
        assert fault.rule in ORDER and RULES[fault.rule].layer == fault.layer, fault.name
        assert fault.undo != fault.inject and fault.status == (6 if fault.layer == "environment" else 1)


def test_faults_go_from_the_ground_up() -> None:
    layers = [LAYERS.index(fault.layer) for fault in read_faults()]

    assert layers == sorted(layers)


def test_faults_are_chosen_by_name_and_by_layer() -> None:
    faults = read_faults()

    assert [fault.name for fault in chosen_faults(faults, "etcd-stopped", None)] == ["etcd-stopped"]
    assert {fault.layer for fault in chosen_faults(faults, None, "content")} == {"content"}
    assert chosen_faults(faults, None, None) == faults
    with pytest.raises(Misconfigured, match="there is no fault etcd-stoped: did you mean etcd-stopped"):
        chosen_faults(faults, "etcd-stoped", None)


@pytest.mark.parametrize("text", ["", "[[fault]]\nname = 1", "no toml", "[[fault]]\nname = 'a'\nunknown = 1"])
def test_file_that_describes_no_faults(tmp_path: Path, text: str) -> None:
    file = tmp_path / "faults.toml"
    file.write_text(text)

    with pytest.raises(Misconfigured, match="does not describe faults"):
        read_faults(file)
