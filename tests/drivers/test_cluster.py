"""A cluster's parts: what is asked anew each time, and what is kept."""

from __future__ import annotations

from typing import Any

import pytest

from harness.drivers import cluster as module
from harness.drivers.cluster import Cluster
from harness.drivers.terraform import Outputs
from harness.record.log import Recorder
from tests.fakes import FakeRunner


def outputs(machines: int) -> Outputs:
    addresses = {f"coreos-{number}": f"192.0.2.{10 + number}" for number in range(machines)}
    return Outputs("192.0.2.10", addresses, "core", "", {"blog": "blog.example", "jpblog": "jp.example"}, "192.0.2.5")


@pytest.fixture
def said() -> list[Outputs]:
    """What the target says of itself now: the last one."""
    return [outputs(3)]


@pytest.fixture
def cluster(said: list[Outputs], recorder: Recorder, runner: FakeRunner) -> Cluster:
    return Cluster(lambda: said[-1], recorder, runner)


def test_connections_last_as_long_as_the_outputs_are_the_same(cluster: Cluster, said: list[Outputs]) -> None:
    first = cluster.machines
    said.append(outputs(3))
    assert cluster.machines is first

    said.append(outputs(4))
    assert cluster.machines is not first
    assert cluster.machines.names[-1] == "coreos-3"
    said.append(outputs(3))
    assert cluster.machines is first


def test_what_is_asked_is_asked_of_the_machines_that_are_there_now(cluster: Cluster, said: list[Outputs]) -> None:
    before = cluster.fleet
    said.append(outputs(4))

    assert cluster.fleet._machines is cluster.machines is not before._machines


def test_a_site_is_asked_at_the_entry_point_or_where_one_says(cluster: Cluster) -> None:
    def address(session: Any) -> str:
        return str(session.get_adapter("http://x")._address)

    assert {name: site.domain for name, site in cluster.sites.items()} == {
        "blog": "blog.example",
        "jpblog": "jp.example",
    }
    assert address(cluster.sites["blog"]._session) == "192.0.2.10"
    assert address(cluster.site_at("blog", "192.0.2.12")._session) == "192.0.2.12"


def test_all_connections_are_ended(cluster: Cluster, said: list[Outputs], monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[list[str]] = []
    monkeypatch.setattr(module.Machines, "close", lambda machines: closed.append(machines.names))
    _ = cluster.machines
    said.append(outputs(1))
    _ = cluster.machines
    cluster.close()

    assert closed == [["coreos-0", "coreos-1", "coreos-2"], ["coreos-0"]]
