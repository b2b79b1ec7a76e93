"""How far the runbook has come: what is intended of the cluster after which commands, and what stands behind it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.drivers.cluster import Cluster
from harness.drivers.shell import OperatorShell
from harness.drivers.terraform import Outputs, target_data
from harness.drivers.units import read_units
from harness.errors import CommandFailed, Misconfigured
from harness.record.log import Recorder
from harness.reports.runbook import commands_of_readme
from harness.runs import progress as module
from harness.runs.progress import GREEN, Progress, last_green, looker_of
from harness.seams.process import Processes
from harness.snapshot.data import Intended
from tests.fakes import FakeRunner
from tests.places import program

ROOT = Path(__file__).resolve().parent.parent.parent
ADDRESSES = {f"coreos-{number}": f"192.0.2.1{number}" for number in range(3)}
RUNBOOK = commands_of_readme((ROOT / "README.md").read_text())
UNITS = {unit.name for unit in read_units(ROOT / "units", ROOT / "units/app")}


@pytest.fixture
def cluster() -> Cluster:
    """Three machines, of which this run has taken one away."""
    sites = {"blog": "blog.example", "jpblog": "jp.example"}
    outputs = Outputs("192.0.2.10", ADDRESSES, "core", "", sites, "192.0.2.4", tuple(ADDRESSES))
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


# -- what looks ------------------------------------------------------------------------------------------------------


@dataclass
class Said:
    """What a looker was made with, in the place of one."""

    cluster: Any
    intended: Intended
    backing: dict[str, str]
    plan: object
    alarms: Callable[[float], list[str]] | None


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch, cluster: Cluster, runner: FakeRunner) -> Callable[..., Said]:
    """What would look for this operator."""
    monkeypatch.setattr(module, "Looker", Said)

    def of(shell: OperatorShell, *, builds: bool = True, process: Any = runner, run_id: str | None = "run-1") -> Said:
        return cast("Said", looker_of(cluster, Progress(shell.typed, builds=builds), shell, process, run_id))

    return of


@pytest.fixture
def operator(tmp_path: Path, recorder: Recorder) -> Callable[..., OperatorShell]:
    """Works in a checkout of its own, with a target that has these entries, and what the cluster was made with."""

    def of(given: dict[str, Any] | None, target: dict[str, Any] | None = None, **environment: str) -> OperatorShell:
        for name in ("units", "container", "infra/image"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).symlink_to(ROOT / name)
        folder = tmp_path / "infra/local"
        folder.mkdir()
        (folder / "target.json").write_text(json.dumps(target or {}))
        if given is not None:
            (folder / "run.auto.tfvars.json").write_text(json.dumps(given))
        environment = {"TARGET": "local", **environment}
        return OperatorShell.open(Processes(recorder), tmp_path / "operator.json", tmp_path, environment)

    return of


Operators = Callable[..., OperatorShell]


def test_backing_services_are_those_that_the_cluster_was_made_with(
    looks: Callable[..., Said], operator: Operators
) -> None:
    given = {"name_server": "192.0.2.4", "image_registry": "192.0.2.5:5000", "machine_image": "x"}
    url = "http://192.0.2.3:2379/v2/keys/new"

    assert looks(operator(given, DISCOVERY_SERVICE=url)).backing == {
        "discovery service": url,
        "image registry": "http://192.0.2.5:5000/v2/",
    }


@pytest.mark.parametrize("given", [None, {}, {"image_registry": ""}])
def test_what_a_cluster_has_not_is_not_looked_at(
    looks: Callable[..., Said], operator: Operators, given: dict[str, Any] | None
) -> None:
    said = looks(operator(given))

    assert (said.backing, said.alarms) == ({}, None)


def test_what_is_intended_is_what_the_operators_files_say(looks: Callable[..., Said], operator: Operators) -> None:
    assert set(looks(operator(None), builds=False).intended.units) == UNITS


def test_the_kernel_is_asked_as_the_target_says(
    looks: Callable[..., Said], operator: Operators, runner: FakeRunner
) -> None:
    said = looks(operator(None, {"kernel_alarms": ["journalctl", "--since=@{since}", "platform-{run_id}"]}))
    runner.on("journalctl", stdout="one alarm\nanother\n")

    assert said.alarms is not None and said.alarms(1785585600.9) == ["one alarm", "another"]
    assert runner.calls == ["journalctl --since=@1785585600 platform-run-1"]


def test_of_another_s_machines_the_kernel_is_not_asked(looks: Callable[..., Said], operator: Operators) -> None:
    assert looks(operator(None, {"kernel_alarms": ["journalctl"]}), run_id=None).alarms is None


# -- when all was well -----------------------------------------------------------------------------------------------


def test_when_all_was_last_well_is_known_of_a_workplace(tmp_path: Path) -> None:
    assert last_green(tmp_path) == 0
    (tmp_path / GREEN).touch()
    os.utime(tmp_path / GREEN, (1785585600, 1785585600))

    assert last_green(tmp_path) == 1785585600


OOM = "2026-12-01T05:00:00,0+00:00 oom-kill:constraint=CONSTRAINT_MEMCG,task_memcg=/docker/{},task=etcd,pid=1\n"
LINE = "`sudo sysctl kernel.dmesg_restrict=0` lets everybody read it"


@pytest.mark.parametrize(
    ("ids", "may", "expected"),
    [
        (["aa11", "bb22"], "everybody", [OOM.format("bb22").strip()]),
        (["aa11", "bb22"], "root", [OOM.format("bb22").strip()]),
        (["aa11"], "root", []),
        # of no machine, and so none of the host's
        ([], "root", []),
        (["aa11", "bb22"], "nobody", LINE),
        (["bb22"], "dmesg fails", "ended with 1"),
    ],
)
def test_the_kernels_log_is_asked_with_the_rights_of_set_up_and_for_this_runs_machines(
    looks: Callable[..., Said],
    operator: Operators,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recorder: Recorder,
    ids: list[str],
    may: str,
    expected: list[str] | str,
) -> None:
    log = OOM.format("bb22") + OOM.format("of-another") + "a line\n"
    fails = '[ "$1" ] && exit 1' if may == "dmesg fails" else ":"
    program(tmp_path, "docker", f"#!/bin/sh\nprintf '%s' '{' '.join(ids)}' | tr ' ' '\\n'\n")
    program(tmp_path, "sudo", '#!/bin/sh\nshift; ROOT=yes exec "$@"\n' if may == "root" else "#!/bin/sh\nexit 1\n")
    right = '[ "$ROOT" ]' if may in ("root", "nobody") else ":"
    program(tmp_path, "dmesg", f"#!/bin/sh\n{right} || exit 1\n{fails}\nprintf '%s' '{log}'\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(module, "target_data", lambda folder: target_data(ROOT / "infra/local"))
    alarms = looks(operator(None), process=Processes(recorder)).alarms

    assert alarms is not None
    if isinstance(expected, list):
        assert alarms(1785585600.9) == expected
    else:
        with pytest.raises(Misconfigured if expected == LINE else CommandFailed, match=expected):
            alarms(1785585600.9)
