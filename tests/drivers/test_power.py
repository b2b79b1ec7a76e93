"""The power switch: what it starts, for each way that the target knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from harness.drivers.power import Power
from harness.drivers.terraform import target_data
from harness.errors import CommandFailed, Misconfigured, ReadOnly
from tests.fakes import FakeRunner
from tests.places import RUN_ID

LOCAL = target_data(Path(__file__).parent.parent.parent / "infra/local")["power"]
NETWORK = target_data(Path(__file__).parent.parent.parent / "infra/local")["network"]
WAYS: dict[str, Callable[[Power, str], None]] = {
    "off": Power.off, "on": Power.on, "gone": Power.gone, "freeze": Power.freeze, "thaw": Power.thaw
}  # fmt: skip
MACHINE = f"platform-{RUN_ID}-coreos-1"


@pytest.mark.parametrize("way", WAYS)
def test_run_that_changes_nothing_switches_nothing(runner: FakeRunner, way: str) -> None:
    power = Power(runner, LOCAL, RUN_ID, read_only=True)

    with pytest.raises(ReadOnly, match=f"power {way} of coreos-1 is refused"):
        WAYS[way](power, "coreos-1")

    assert runner.calls == []


@pytest.mark.parametrize("way", WAYS)
def test_switch_that_fails_is_told(runner: FakeRunner, way: str) -> None:
    for program in ("docker", "sh"):
        runner.on(program, status=1, stderr="Error response from daemon: No such container")

    with pytest.raises(CommandFailed, match="No such container"):
        WAYS[way](Power(runner, LOCAL, RUN_ID), "coreos-1")


@pytest.mark.parametrize("way", ["cut", "deafen", "thin"])
def test_machine_is_cut_off_from_others(runner: FakeRunner, way: str) -> None:
    Power(runner.on("docker"), NETWORK, RUN_ID).switch(way, "coreos-1", ["192.0.2.10", "192.0.2.12"])

    ((*words, table),) = [call.argv for call in runner.details]
    assert words == ["docker", "exec", MACHINE, "nft"]
    assert table.startswith("table inet cut { chain in {")
    assert table.count("{ 192.0.2.10, 192.0.2.12 }") == table.count("drop;") == (1 if way == "deafen" else 2)
    assert table.count("numgen random mod 5 == 0 drop;") == (2 if way == "thin" else 0)
    assert table.count("{") == table.count("}")


def test_a_machine_that_could_not_be_asked_refused_nothing(runner: FakeRunner) -> None:
    """What is left out for that would pass."""
    with pytest.raises(CommandFailed, match="timed out"):
        Power(runner.on("sh -c", status=255, stderr="ssh: connect: timed out"), NETWORK, RUN_ID).refused()


def test_what_the_kernel_of_the_machines_cannot_do_is_said(runner: FakeRunner) -> None:
    assert Power(runner.on("sh -c"), NETWORK, RUN_ID).refused() == ""

    runner.on("sh -c", status=1, stderr="Error: Could not process rule: No such file or directory\ntable inet cut\n")
    refused = Power(runner, NETWORK, RUN_ID).refused()
    assert refused == "Error: Could not process rule: No such file or directory"


@pytest.mark.parametrize("commands", [{}, {"off": ["true"], "on": ["true"], "went": ["true"]}])
def test_way_that_the_target_does_not_know(runner: FakeRunner, commands: Mapping[str, Sequence[str]]) -> None:
    with pytest.raises(Misconfigured, match="gone"):
        Power(runner, commands, RUN_ID).gone("coreos-1")

    assert runner.calls == []


@pytest.mark.parametrize(
    ("way", "argv"),
    [
        ("off", ("docker", "kill", MACHINE)),
        ("on", ("docker", "start", MACHINE)),
        ("gone", ("docker", "rm", "--force", "--volumes", MACHINE)),
    ],
)
def test_local_machine_is_switched_as_its_target_says(runner: FakeRunner, way: str, argv: tuple[str, ...]) -> None:
    WAYS[way](Power(runner.on("docker"), LOCAL, RUN_ID), "coreos-1")

    assert [call.argv for call in runner.details] == [argv]


def test_hosts_are_switched_by_their_addresses_from_the_operators_folder(
    runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_POWER", "/opt/power")
    hosts = target_data(Path(__file__).parent.parent.parent / "infra/hosts")
    Power(runner.on("sh"), hosts["power"], RUN_ID, Path("/run/operator")).off("coreos-1")

    (call,) = runner.details
    assert call.argv[2] == "exec $HOST_POWER off $(ssh -G -F ssh_config coreos-1 | sed -n 's/^hostname //p')"
    assert call.cwd == Path("/run/operator")


def test_every_way_is_the_targets_own(runner: FakeRunner) -> None:
    commands = {way: ["cloud", way, "--of={run_id}", "{machine}@{machine}", "{{as it is}}"] for way in WAYS}
    power = Power(runner.on("cloud"), commands, "RUN")
    for switch in WAYS.values():
        switch(power, "coreos-7")

    assert [call.argv for call in runner.details] == [
        ("cloud", way, "--of=RUN", "coreos-7@coreos-7", "{as it is}") for way in WAYS
    ]
