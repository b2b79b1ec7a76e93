"""Stock hosts: which are made, which stay, and what is written down of them. That they boot is tried by trying it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.commands.hosts import Hosts, make_hosts
from harness.errors import Misconfigured
from harness.record.log import Recorder
from harness.seams.wait import Waiter
from tests.fakes import FakeClock, FakeRunner

IMAGE = "sha256:5678"
KEYS = "ssh-ed25519 AAAA{} root@host\necdsa-sha2-nistp256 BBBB{} root@host\n"


@pytest.fixture
def hosts(runner: FakeRunner, tmp_path: Path) -> Hosts:
    boot = tmp_path / "infra/stock-hosts/boot"
    boot.parent.mkdir(parents=True)
    boot.write_text("exec /sbin/init\n")
    runner.on("docker").on("docker image inspect", IMAGE).on("ssh-keygen -y", "ssh-ed25519 CCCC")
    runner.on("docker network inspect", "10.210.1.0/24\n")
    return Hosts(tmp_path, runner)


def stand(runner: FakeRunner, hosts: Hosts, *numbers: int, image: str = IMAGE) -> None:
    """These stand, as the engine tells of them: in no order."""
    network = hosts._network
    found = [
        {
            "Name": f"/{network}-{number}",
            "Image": image,
            "NetworkSettings": {"Networks": {network: {"IPAMConfig": {"IPv4Address": f"10.210.1.{10 + number}"}}}},
        }
        for number in reversed(numbers)
    ]
    runner.on("docker ps", "abc\n" * len(found)).on("docker inspect", json.dumps(found))


def test_hosts_that_are_missing_are_made_at_their_addresses(runner: FakeRunner, hosts: Hosts) -> None:
    stand(runner, hosts, 0)
    hosts.make(3, "platform-host:1234")

    made = [call for call in runner.calls if call.startswith("docker create")]
    assert [f"--ip 10.210.1.{11 + index}" in call for index, call in enumerate(made)] == [True, True]
    assert all("--privileged" not in call and "exec /sbin/init" in call for call in made)
    assert [call for call in runner.calls if call.startswith("docker rm")] == []
    network = hosts._network
    assert runner.calls[-1] == f"docker start {network}-0 {network}-1 {network}-2"


@pytest.mark.parametrize(("number", "image", "removed"), [(1, IMAGE, [1]), (2, "sha256:other", [0, 1])])
def test_hosts_that_are_too_many_or_of_another_system_go(
    runner: FakeRunner, hosts: Hosts, number: int, image: str, removed: list[int]
) -> None:
    stand(runner, hosts, 0, 1, image=image)
    hosts.make(number, "platform-host:1234")

    gone = [call for call in runner.calls if call.startswith("docker rm")]
    assert gone == [f"docker rm --force --volumes {hosts._network}-{index}" for index in removed]


def test_what_the_target_has_to_know_is_written_down(runner: FakeRunner, hosts: Hosts, tmp_path: Path) -> None:
    stand(runner, hosts, 0, 1)
    for number in (0, 1):
        runner.on(f"docker exec {hosts._network}-{number}", KEYS.format(number, number))
    hosts.write_down()

    assert (tmp_path / "infra/hosts/known_hosts").read_text() == (
        "10.210.1.10 ssh-ed25519 AAAA0\n10.210.1.10 ecdsa-sha2-nistp256 BBBB0\n"
        "10.210.1.11 ssh-ed25519 AAAA1\n10.210.1.11 ecdsa-sha2-nistp256 BBBB1\n"
    )
    variables = hosts.variables.read_text()
    assert '  "10.210.1.10",\n  "10.210.1.11",\n' in variables and f'"{hosts.key}"' in variables


def test_the_operators_key_is_for_their_eyes_and_let_in_on_each(
    runner: FakeRunner, hosts: Hosts, recorder: Recorder, clock: FakeClock
) -> None:
    stand(runner, hosts, 0, 1)
    for number in (0, 1):
        runner.on(f"docker exec {hosts._network}-{number} systemctl", "running\n")
    hosts.wait(Waiter(recorder, clock))

    assert hosts.key.stat().st_mode & 0o777 == 0o600
    let_in = [detail.stdin for detail in runner.details if "authorized_keys" in " ".join(detail.argv)]
    assert let_in == ["ssh-ed25519 CCCC\n"] * 2


def test_nothing_is_left_of_them(runner: FakeRunner, hosts: Hosts) -> None:
    stand(runner, hosts, 0, 1)
    runner.on("docker network ls", "dead\n")
    hosts.write_down()
    hosts.remove()

    network = hosts._network
    assert runner.calls[-1] == f"docker network rm {network}"
    assert f"docker rm --force --volumes {network}-0 {network}-1" in runner.calls
    assert list(hosts.variables.parent.iterdir()) == []


@pytest.mark.parametrize(("number", "suite"), [(0, "bookworm"), (101, "bookworm"), (3, "Debian 12"), (3, "../x")])
def test_what_cannot_be_is_refused(tmp_path: Path, number: int, suite: str) -> None:
    with pytest.raises(Misconfigured):
        make_hosts(tmp_path, number, suite)


def test_hosts_that_the_operator_wrote_down_are_not_written_over(
    runner: FakeRunner, hosts: Hosts, tmp_path: Path
) -> None:
    hosts.variables.parent.mkdir(parents=True, exist_ok=True)
    hosts.variables.write_text('hosts = ["10.0.0.11"]\n')

    with pytest.raises(Misconfigured, match="names hosts of yours: move it away"):
        Hosts(tmp_path, runner)
