"""How far the runbook has come: what is intended of the cluster after which commands, and what stands behind it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.drivers.cluster import Cluster
from harness.drivers.shell import OperatorShell
from harness.drivers.terraform import Outputs
from harness.drivers.units import read_units
from harness.record.log import Recorder
from harness.reports.runbook import commands_of_readme
from harness.runs.progress import Progress, backing_services
from harness.seams.process import Processes
from harness.snapshot.data import Intended

ROOT = Path(__file__).resolve().parent.parent.parent
ADDRESSES = {f"coreos-{number}": f"192.0.2.1{number}" for number in range(3)}
RUNBOOK = commands_of_readme((ROOT / "README.md").read_text())
UNITS = {unit.name for unit in read_units(ROOT / "units", ROOT / "units/app")}


@pytest.fixture
def cluster() -> Cluster:
    """Three machines, of which this run has taken one away."""
    sites = {"blog": "blog.example", "jpblog": "jp.example"}
    outputs = Outputs("192.0.2.10", ADDRESSES, "core", "", sites, "192.0.2.4")
    machines = SimpleNamespace(names=["coreos-0", "coreos-2"])
    return cast("Cluster", SimpleNamespace(outputs=outputs, machines=machines))


def after(cluster: Cluster, *typed: str, builds: bool = True) -> Intended:
    return Progress(typed, builds=builds).intended(cluster, ROOT)


def up_to(beginning: str) -> list[str]:
    """The runbook's commands up to the last of step that begins so."""
    (*_, last) = (at for at, command in enumerate(RUNBOOK) if command.startswith(beginning))
    return RUNBOOK[: last + 1]


def test_before_anything_is_loaded_no_unit_is_intended(cluster: Cluster) -> None:
    intended = after(cluster, *up_to("fleetctl list-machines")[:9])

    assert (intended.units, intended.started, intended.deployed) == ({}, False, ())
    assert intended.machines == {"coreos-0": "192.0.2.10", "coreos-2": "192.0.2.12"}  # a machine taken away is none
    assert (intended.entry_point, intended.name_server) == ("192.0.2.10", "192.0.2.4")


def test_what_is_loaded_is_not_to_run_yet(cluster: Cluster) -> None:
    intended = after(cluster, "fleetctl load units/*.service units/app/*.service")

    assert set(intended.units) == UNITS and not intended.started


def test_what_is_started_is_to_run(cluster: Cluster) -> None:
    intended = after(cluster, "fleetctl start --no-block units/*.service units/app/*.service")

    assert set(intended.units) == UNITS and intended.started and intended.deployed == ()


def test_a_site_is_there_when_it_was_deployed(cluster: Cluster) -> None:
    assert after(cluster, "./bin/deploy-blog jpblog sites/jpblog").deployed == ("jpblog",)
    assert after(cluster, "./bin/deploy-blog blog sites/blog").deployed == ("blog",)


@pytest.mark.parametrize("line", ["echo fleetctl start units", "fleetctl list-units", "./bin/deploy-blog --help"])
def test_other_commands_change_nothing_of_it(cluster: Cluster, line: str) -> None:
    intended = after(cluster, line)

    assert (intended.units, intended.started, intended.deployed) == ({}, False, ())


def test_the_readmes_commands_are_those_that_are_known(cluster: Cluster) -> None:
    """Were they written otherwise, nothing would be intended, and nothing wrong."""
    intended = after(cluster, *RUNBOOK)

    assert set(intended.units) == UNITS and intended.started and set(intended.deployed) == {"blog", "jpblog"}


def test_on_a_cluster_that_stood_before_all_is_done(cluster: Cluster) -> None:
    assert after(cluster, builds=False) == after(cluster, *RUNBOOK)


def test_what_is_typed_later_counts_from_then_on(cluster: Cluster) -> None:
    typed: list[str] = []
    progress = Progress(typed, builds=True)
    assert not progress.intended(cluster, ROOT).started
    typed.append("fleetctl start --no-block units/*.service")

    assert progress.intended(cluster, ROOT).started


# -- what stands behind the cluster ----------------------------------------------------------------------------------


def operator(folder: Path, recorder: Recorder, given: dict[str, Any] | None, **environment: str) -> OperatorShell:
    target = folder / "infra/local"
    target.mkdir(parents=True)
    if given is not None:
        (target / "run.auto.tfvars.json").write_text(json.dumps(given))
    environment = {"TARGET": "local", **environment}
    return OperatorShell.open(Processes(recorder), folder / "operator.json", folder, environment)


def test_backing_services_are_those_that_the_cluster_was_made_with(tmp_path: Path, recorder: Recorder) -> None:
    given = {"name_server": "192.0.2.4", "image_registry": "192.0.2.5:5000", "machine_image": "x"}
    url = "http://192.0.2.3:2379/v2/keys/new"

    assert backing_services(operator(tmp_path, recorder, given, DISCOVERY_SERVICE=url)) == {
        "discovery service": url,
        "image registry": "http://192.0.2.5:5000/v2/",
    }


@pytest.mark.parametrize("given", [None, {}, {"name_server": "", "image_registry": ""}])
def test_what_a_cluster_has_not_is_not_looked_at(
    tmp_path: Path, recorder: Recorder, given: dict[str, Any] | None
) -> None:
    assert backing_services(operator(tmp_path, recorder, given)) == {}
