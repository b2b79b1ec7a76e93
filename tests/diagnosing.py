"""A standing cluster to diagnose that is not there: machines that are folders, and looks that a test makes up."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.drivers.cluster import Connections
from harness.runs import diagnosis, evidence, watch
from harness.runs.agent import Agent
from harness.runs.execution import Execution
from harness.runs.run import runs_folder
from harness.snapshot.data import Snapshot
from tests.places import OUTPUTS, FakeAgent, kept_run, program
from tests.transcripts.machines import FolderMachines
from tests.transcripts.snapshots import change, green, silent

# what is asked of each machine, for evidence
QUESTIONS = {"first": "echo of the machine", "last": "echo the end"}
# prints a line of a journal of just that moment
JOURNALCTL = """#!/bin/sh
for word in "$@"; do case "$word" in --since=@*) echo "${word#--since=@}.5 etcd[7]: its last words";; esac; done
"""
ETCD_IS_DOWN = change(green(), "machines.coreos-1.units.etcd.service.active", "inactive")
ONE_IS_SILENT = silent(green(), "coreos-1")


@dataclass
class FakeLooker:
    """Takes looks that show what a test says; remembers how long each might have taken, in seconds."""

    shows: Snapshot | BaseException = field(default_factory=green)
    within: list[float] = field(default_factory=list)

    def look(
        self, number: int, since: float, before: Snapshot | None = None, *, costly: bool = True, within: float = 90.0
    ) -> Snapshot:
        self.within.append(within)
        if isinstance(self.shows, BaseException):
            raise self.shows
        return msgspec.structs.replace(self.shows, number=number)

    def listens(self, names: Collection[str]) -> bool:
        return True


@dataclass
class Standing:
    """The cluster: the folder of the run that made it, its machines, and all commands that they were given."""

    root: Path
    folder: Path
    machines: FolderMachines
    looker: FakeLooker
    agent: FakeAgent
    asked: list[tuple[str, str]] = field(default_factory=list)

    def of_diagnosis(self) -> Path:
        """The only run folder beside its own."""
        (folder,) = (folder for folder in runs_folder(self.root).iterdir() if folder != self.folder)
        return folder


def standing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Standing:
    """A cluster that stands, where the test's `surroundings` are: all is well, until the test says otherwise."""
    program(tmp_path, "sudo", '#!/bin/sh\nexec "$@"\n')
    program(tmp_path, "journalctl", JOURNALCTL)
    it = Standing(root, kept_run(root), FolderMachines(tmp_path / "machines"), FakeLooker(), FakeAgent())
    it.machines.before = lambda name, command: it.asked.append((name, command))
    looker: Any = lambda *arguments: it.looker  # noqa: E731
    monkeypatch.setattr(Agent, "start", lambda run, key, environment: it.agent)
    monkeypatch.setattr(Execution, "outputs", lambda execution: OUTPUTS)
    monkeypatch.setattr(Connections, "machines", lambda connections, outputs: it.machines)
    monkeypatch.setattr(diagnosis, "looker_of", looker)
    monkeypatch.setattr(evidence, "QUESTIONS", QUESTIONS)
    # what a later look might tell is not waited for
    monkeypatch.setattr(watch, "FLEET_LAG", -1.0)
    return it
