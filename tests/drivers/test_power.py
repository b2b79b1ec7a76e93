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
WAYS: dict[str, Callable[[Power, str], None]] = {"off": Power.off, "on": Power.on, "gone": Power.gone}
MACHINE = f"platform-{RUN_ID}-coreos-1"


@pytest.mark.parametrize("way", WAYS)
def test_run_that_changes_nothing_switches_nothing(runner: FakeRunner, way: str) -> None:
    power = Power(runner, LOCAL, RUN_ID, read_only=True)

    with pytest.raises(ReadOnly, match=f"power {way} of coreos-1 is refused"):
        WAYS[way](power, "coreos-1")

    assert runner.calls == []


@pytest.mark.parametrize("way", WAYS)
def test_switch_that_fails_is_told(runner: FakeRunner, way: str) -> None:
    runner.on("docker", status=1, stderr="Error response from daemon: No such container")

    with pytest.raises(CommandFailed, match="No such container"):
        WAYS[way](Power(runner, LOCAL, RUN_ID), "coreos-1")


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


def test_every_way_is_the_targets_own(runner: FakeRunner) -> None:
    commands = {way: ["cloud", way, "--of={run_id}", "{machine}@{machine}", "{{as it is}}"] for way in WAYS}
    power = Power(runner.on("cloud"), commands, "RUN")
    for switch in WAYS.values():
        switch(power, "coreos-7")

    assert [call.argv for call in runner.details] == [
        ("cloud", way, "--of=RUN", "coreos-7@coreos-7", "{as it is}") for way in WAYS
    ]
