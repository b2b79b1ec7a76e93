"""A cluster's parts: what is asked anew each time, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.drivers import cluster as module
from harness.drivers.cluster import Cluster, Connections
from harness.drivers.terraform import Outputs
from harness.record.log import Recorder
from tests.fakes import FakeRunner


def outputs(machines: int) -> Outputs:
    addresses = {f"coreos-{number}": f"192.0.2.{10 + number}" for number in range(machines)}
    return Outputs(
        "192.0.2.10",
        addresses,
        "core",
        "",
        {"blog": "blog.example", "jpblog": "jp.example"},
        "192.0.2.5",
        tuple(addresses),
    )


@pytest.fixture
def said() -> list[Outputs]:
    """What the target says of itself now: the last one."""
    return [outputs(3)]


@pytest.fixture
def connections(recorder: Recorder) -> Connections:
    return Connections(recorder)


@pytest.fixture
def now(said: list[Outputs], connections: Connections, runner: FakeRunner) -> Callable[[], Cluster]:
    """The cluster as the target's outputs tell of it now."""
    return lambda: Cluster(lambda: said[-1], connections, runner)


def test_connections_last_as_long_as_the_outputs_are_the_same(now: Callable[[], Cluster], said: list[Outputs]) -> None:
    first = now().machines
    said.append(outputs(3))
    assert now().machines is first

    said.append(outputs(4))
    assert now().machines is not first
    assert now().machines.names[-1] == "coreos-3"
    said.append(outputs(3))
    assert now().machines is first


def test_a_cluster_is_as_it_was_when_it_was_first_asked_for(now: Callable[[], Cluster], said: list[Outputs]) -> None:
    before = now()
    assert before.units._machines is before.machines
    said.append(outputs(4))

    assert len(before.machines.names) == 3
    assert len(now().machines.names) == 4


def test_nothing_is_asked_of_the_target_before_a_part_is(connections: Connections, runner: FakeRunner) -> None:
    Cluster(lambda: pytest.fail("the outputs were read"), connections, runner)


def test_a_site_is_asked_at_the_entry_point_or_where_one_says(now: Callable[[], Cluster]) -> None:
    def address(session: Any) -> str:
        return str(session.get_adapter("http://x")._address)

    cluster = now()

    assert {name: site.domain for name, site in cluster.sites.items()} == {
        "blog": "blog.example",
        "jpblog": "jp.example",
    }
    assert address(cluster.sites["blog"]._session) == "192.0.2.10"
    assert address(cluster.site_at("blog", "192.0.2.12")._session) == "192.0.2.12"


@pytest.mark.parametrize(("host", "where"), [("192.0.2.11", "on a machine"), ("192.0.2.4", "from here")])
def test_a_discovery_url_is_asked_where_its_service_answers(
    now: Callable[[], Cluster], monkeypatch: pytest.MonkeyPatch, host: str, where: str
) -> None:
    monkeypatch.setattr(module.Registration, "on", lambda machines, url: f"on a machine: {url}")
    monkeypatch.setattr(module.Registration, "at", lambda url, recorder: f"from here: {url}")

    assert now().registration(f"http://{host}:4379/token") == f"{where}: http://{host}:4379/token"


def test_all_connections_are_ended(
    now: Callable[[], Cluster], connections: Connections, said: list[Outputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[list[str]] = []
    monkeypatch.setattr(module.Machines, "close", lambda machines: closed.append(machines.names))
    with connections:
        _ = now().machines
        said.append(outputs(1))
        _ = now().machines

    assert closed == [["coreos-0", "coreos-1", "coreos-2"], ["coreos-0"]]
