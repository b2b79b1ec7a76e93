"""The steps of feature 14: units that end at once, another shell, and what fleetctl is to say in it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.drivers.shell import OperatorShell
from harness.drivers.units import UnitState
from harness.errors import CommandFailed, PlatformWrong, WaitExpired
from harness.record.log import Recorder
from harness.seams.process import Result
from harness.seams.wait import Waiter
from steps import cluster as of_cluster
from steps import operator as of_operator
from steps import services as of_services
from steps import units as of_units
from tests.fakes import FakeClock, FakeRunner

ROOT = Path(__file__).resolve().parent.parent
ADDRESSES = {f"coreos-{number}": f"192.0.2.1{number}" for number in range(3)}
FIRST, SECOND = "gives-up.service", "keeps-on.service"
DEAD = UnitState("loaded", "failed", "failed", 5)
RUNS = UnitState("loaded", "active", "running", 0)


def restarted(times: int) -> UnitState:
    return UnitState("loaded", "activating", "auto-restart", times)


States = dict[str, UnitState]


class FakeCluster:
    """One unit, as the looks see it one after the other; the last look stays."""

    def __init__(self, *looks: States, runs_on: str = "coreos-0") -> None:
        self._looks = list(looks)
        self.units = SimpleNamespace(
            states=self._states,
            machine_running=lambda unit: runs_on,
            machines_running=lambda unit: sorted(name for name, it in self._states(unit).items() if it == RUNS),
            status=lambda unit, machine: f"{unit} on {machine}: {self._states(unit)}",
        )
        self.machines = SimpleNamespace(names=list(ADDRESSES), addresses=ADDRESSES)

    def _states(self, unit: str) -> States:
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]


@dataclass
class FakeFleetctl:
    held: set[str] = field(default_factory=set)
    answers: dict[str, Result] = field(default_factory=dict)
    destroyed: list[tuple[str, ...]] = field(default_factory=list)

    def units(self) -> set[str]:
        return self.held

    def destroy(self, *units: str) -> None:
        self.destroyed.append(units)

    def about(self, unit: str, within: float) -> dict[str, Result]:
        assert (unit, within) == ("blog.service", 5)
        return self.answers


@pytest.fixture
def waiter(recorder: Recorder, clock: FakeClock) -> Waiter:
    return Waiter(recorder, clock)


@pytest.fixture
def put_back() -> Iterator[ExitStack]:
    """Closed by the tests that are about it."""
    stack = ExitStack()
    yield stack
    stack.pop_all()


def answer(status: int, stdout: str = "", stderr: str = "") -> Result:
    return Result(("fleetctl",), status, stdout, stderr, 0.1)


# -- units that end at once ------------------------------------------------------------------------------------------


def test_units_of_one_scenario_are_destroyed_however_it_ends(put_back: ExitStack) -> None:
    fleetctl: Any = FakeFleetctl({"blog.service"})
    of_units.units_of_scenario(fleetctl, put_back, FIRST, SECOND)
    assert fleetctl.destroyed == []

    put_back.close()

    assert fleetctl.destroyed == [(FIRST, SECOND)]


def test_units_that_are_there_already_are_told_and_left_alone(put_back: ExitStack) -> None:
    fleetctl: Any = FakeFleetctl({"blog.service", SECOND})

    with pytest.raises(PlatformWrong, match=r"fleet has no such unit yet.*keeps-on") as raised:
        of_units.units_of_scenario(fleetctl, put_back, FIRST, SECOND)

    put_back.close()
    assert fleetctl.destroyed == [] and raised.value.paste == f"fleetctl destroy {FIRST} {SECOND}"


def test_unit_that_is_restarted_all_the_while(waiter: Waiter, clock: FakeClock) -> None:
    cluster: Any = FakeCluster({}, {"coreos-1": restarted(0)}, {"coreos-1": restarted(2)})

    of_units.unit_is_restarted(cluster, waiter, SECOND, 2, 10)

    assert 10 <= sum(clock.slept) < 11


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([{}], "not within 10 s"),
        ([{"coreos-1": DEAD}], "not within 10 s"),
        ([{"coreos-1": restarted(1)}, {"coreos-1": DEAD}], "held only"),
        ([{"coreos-1": restarted(1)}, {}], "held only"),
        ([{"coreos-1": restarted(3), "coreos-2": restarted(3)}], "not within 10 s"),
    ],
)
def test_unit_that_systemd_gives_up_on(waiter: Waiter, looks: list[States], said: str) -> None:
    cluster: Any = FakeCluster(*looks)

    with pytest.raises(WaitExpired, match=said):
        of_units.unit_is_restarted(cluster, waiter, SECOND, 2, 10)


def test_unit_that_is_not_dead_and_not_restarted_either(waiter: Waiter) -> None:
    cluster: Any = FakeCluster({"coreos-1": UnitState("loaded", "inactive", "dead", 1)})

    with pytest.raises(PlatformWrong) as raised:
        of_units.unit_is_restarted(cluster, waiter, SECOND, 2, 10)

    assert (raised.value.expected, raised.value.seen) == ("2 times", "1")


def test_unit_that_stays_dead(waiter: Waiter, clock: FakeClock) -> None:
    cluster: Any = FakeCluster({"coreos-1": RUNS}, {"coreos-1": DEAD})

    of_units.unit_stays_dead(cluster, waiter, FIRST, 10)

    assert 10 <= sum(clock.slept) < 11


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([{"coreos-1": RUNS}], "not within 2 s"),
        ([{"coreos-1": DEAD}, {"coreos-1": RUNS}], "held only"),
    ],
)
def test_unit_that_does_not_stay_dead(waiter: Waiter, looks: list[States], said: str) -> None:
    cluster: Any = FakeCluster(*looks)

    with pytest.raises(WaitExpired, match=said):
        of_units.unit_stays_dead(cluster, waiter, FIRST, 10)


def test_unit_that_says_something_by_and_by(waiter: Waiter, clock: FakeClock) -> None:
    cluster: Any = FakeCluster({"coreos-1": RUNS}, {"coreos-1": DEAD})

    of_units.unit_says(cluster, waiter, FIRST, "coreos-1", "failed", 10)

    assert len(clock.slept) == 1
    with pytest.raises(WaitExpired, match="not within 10 s"):
        of_units.unit_says(cluster, waiter, FIRST, "coreos-1", "waiting for", 10)


def test_unit_that_is_dead() -> None:
    cluster: Any = FakeCluster({"coreos-1": DEAD})

    of_units.unit_is_given_up(cluster, FIRST)


@pytest.mark.parametrize("seen", [{}, {"coreos-1": restarted(5)}, {"coreos-1": DEAD, "coreos-2": DEAD}])
def test_unit_that_is_not_dead(seen: States) -> None:
    cluster: Any = FakeCluster(seen)

    with pytest.raises(PlatformWrong) as raised:
        of_units.unit_is_given_up(cluster, FIRST)

    assert raised.value.seen == str(seen)


@pytest.mark.parametrize(("held", "state"), [({FIRST}, {}), ({SECOND}, {}), (set(), {"coreos-1": DEAD})])
def test_units_of_which_something_is_left(waiter: Waiter, held: set[str], state: States) -> None:
    cluster: Any = FakeCluster(state)
    fleetctl: Any = FakeFleetctl({"blog.service", *held})

    with pytest.raises(WaitExpired, match="not within 10 s"):
        of_units.units_are_gone(cluster, fleetctl, waiter, FIRST, SECOND, 10)


def test_units_that_are_gone_in_the_end(waiter: Waiter, clock: FakeClock) -> None:
    cluster: Any = FakeCluster({"coreos-1": DEAD}, {})
    fleetctl: Any = FakeFleetctl({"blog.service"})

    of_units.units_are_gone(cluster, fleetctl, waiter, FIRST, SECOND, 10)

    assert len(clock.slept) == 1


def test_of_units_that_are_gone_systemd_may_remember_a_failure(waiter: Waiter, clock: FakeClock) -> None:
    cluster: Any = FakeCluster({"coreos-1": replace(DEAD, load="not-found")})
    fleetctl: Any = FakeFleetctl(set())

    of_units.units_are_gone(cluster, fleetctl, waiter, FIRST, SECOND, 10)

    assert not clock.slept


# -- another shell ---------------------------------------------------------------------------------------------------


@pytest.fixture
def first(recorder: Recorder, tmp_path: Path) -> OperatorShell:
    environment = {"FLEETCTL_TUNNEL": "192.0.2.10", "SSH_AGENT_PID": "1", "FLEETCTL_KNOWN_HOSTS_FILE": "known_hosts"}
    shell = OperatorShell.open(FakeRunner(), tmp_path / "operator.json", tmp_path, environment)
    shell.own = {"SSH_AUTH_SOCK": "/agent/of/the/run"}
    return shell


@pytest.fixture
def another_shell(request: pytest.FixtureRequest, first: OperatorShell, tmp_path: Path, put_back: ExitStack) -> Any:
    root: Any = request.config.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    return inspect.unwrap(root.another_shell)(first, FakeRunner(), tmp_path, put_back)


def test_a_shell_without_an_agent_is_another_one_and_closes_with_the_scenario(
    first: OperatorShell, another_shell: Any, put_back: ExitStack, tmp_path: Path
) -> None:
    shell = of_operator.shell_without_agent(another_shell)
    assert shell.env == {"FLEETCTL_TUNNEL": "192.0.2.10", "FLEETCTL_KNOWN_HOSTS_FILE": "known_hosts"}
    assert shell.cwd == first.cwd and first.env["SSH_AUTH_SOCK"] == "/agent/of/the/run"

    put_back.close()

    assert [path.name for path in tmp_path.glob("*.json")] == ["operator.json"]


@pytest.mark.parametrize(("runs_on", "through"), [("coreos-0", "192.0.2.11"), ("coreos-2", "192.0.2.10")])
def test_a_tunnel_leads_around_a_machine_and_the_agent_of_the_run_stays(
    another_shell: Any, first: OperatorShell, runs_on: str, through: str
) -> None:
    cluster: Any = FakeCluster({}, runs_on=runs_on)

    shell = of_operator.shell_with_another_tunnel(another_shell, cluster, "blog.service")

    assert shell.env["FLEETCTL_TUNNEL"] == through and shell.env["SSH_AUTH_SOCK"] == "/agent/of/the/run"
    assert "SSH_AGENT_PID" not in shell.env and first.env["FLEETCTL_TUNNEL"] == "192.0.2.10"


def test_host_keys_of_another_cluster_are_there_until_the_scenario_ends(
    first: OperatorShell, put_back: ExitStack, tmp_path: Path
) -> None:
    right = "192.0.2.10 ssh-ed25519 AAAAone\n192.0.2.11 ssh-ed25519 AAAAtwo\n"
    (tmp_path / "known_hosts").write_text(right)

    of_operator.host_keys_of_another_cluster(first, put_back)

    wrong = (tmp_path / "known_hosts").read_text().splitlines()
    assert [line.split()[:2] for line in wrong] == [line.split()[:2] for line in right.splitlines()]
    assert all(re.fullmatch(r"\S+ ssh-ed25519 AAAA[\w+/]{64} another cluster", line) for line in wrong)

    put_back.close()

    assert (tmp_path / "known_hosts").read_text() == right


# -- what it says ----------------------------------------------------------------------------------------------------

REFUSED = answer(1, stderr="ssh: handshake failed: host key mismatch\n")


def test_fleetctl_that_answers() -> None:
    fleetctl: Any = FakeFleetctl(answers={"status": answer(0), "ssh": answer(0)})

    of_operator.fleetctl_answers(fleetctl, "blog.service", 5)


def test_fleetctl_that_does_not_answer_one_of_them() -> None:
    fleetctl: Any = FakeFleetctl(answers={"status": answer(0), "ssh": REFUSED})

    with pytest.raises(CommandFailed, match="host key mismatch"):
        of_operator.fleetctl_answers(fleetctl, "blog.service", 5)


def test_fleetctl_that_fails_as_it_is_to() -> None:
    fleetctl: Any = FakeFleetctl(answers={"status": REFUSED, "ssh": REFUSED})

    of_operator.fleetctl_fails(fleetctl, "blog.service", 5, "host key mismatch")


@pytest.mark.parametrize("other", [answer(0), answer(1, stderr="no route to host"), answer(2, stderr="panic: nil")])
def test_fleetctl_that_does_not_fail_so(other: Result) -> None:
    fleetctl: Any = FakeFleetctl(answers={"status blog.service": REFUSED, "ssh blog.service true": other})

    with pytest.raises(PlatformWrong) as raised:
        of_operator.fleetctl_fails(fleetctl, "blog.service", 5, "host key mismatch")

    assert raised.value.expected == "host key mismatch" and raised.value.paste == "fleetctl ssh blog.service true"


def test_answer_that_says_it() -> None:
    of_operator.answer_says(
        answer(0, "gives-up.service: Start request repeated too quickly.\n"), "repeated too quickly"
    )


def test_answer_that_says_something_else() -> None:
    with pytest.raises(PlatformWrong) as raised:
        of_operator.answer_says(answer(0, "Stopped gives-up.service\n", "repeated too quickly"), "repeated too quickly")

    assert raised.value.seen == "Stopped gives-up.service"


def test_a_refusal_is_on_the_error_stream_whatever_frame_and_lines_it_has() -> None:
    framed = (
        "╷\n│ Error: Module output value precondition failed\n│ \n│ machines = 2 would take members\n│ out of etcd\n╵\n"
    )
    of_operator.refusal_says(answer(1, "", framed), "would take members out of etcd")
    with pytest.raises(PlatformWrong, match="the refusal says what is wrong"):
        of_operator.refusal_says(answer(0, "would take members out of etcd", ""), "would take members out of etcd")


# -- what a machine is, and what containers reach ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "well"),
    [("192.0.2.10", True), ("198.51.100.1", True), ("192.0.2.11", False), ("203.0.113.9", False), ("", False)],
)
def test_the_entry_point_is_a_machine_or_an_address_at_which_its_keys_are_pinned(seen: str, well: bool) -> None:
    known_hosts = "".join(f"{it} ssh-ed25519 AAAA\n" for it in (*ADDRESSES.values(), "198.51.100.1"))
    outputs = SimpleNamespace(known_hosts=known_hosts)
    cluster: Any = SimpleNamespace(machines=SimpleNamespace(addresses=ADDRESSES), outputs=outputs)

    if well:
        of_cluster.answer_is_address(answer(0, f"{seen}\n"), cluster, "coreos-0")
    else:
        with pytest.raises(PlatformWrong, match="the answer is coreos-0"):
            of_cluster.answer_is_address(answer(0, f"{seen}\n"), cluster, "coreos-0")


@pytest.mark.parametrize("taken", [{}, {"coreos-0": set()}, {"coreos-0": {"etcd:2379", "192.0.2.11:2379"}}])
def test_containers_that_reach_too_little_or_too_much_or_were_not_asked(taken: dict[str, set[str]]) -> None:
    cluster: Any = SimpleNamespace(services=SimpleNamespace(taken=lambda service, machines: taken))

    with pytest.raises(PlatformWrong):
        of_services.containers_reach_etcd(cluster, lambda: list(taken), "blog")
