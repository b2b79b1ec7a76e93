"""Machines for the tests: some that answer from transcripts, and some that are folders of this machine.

The transcripts are what programs really answered on a cluster of three machines, cut down to what is read of it:

cluster.json   subject -> machine -> what a command printed there (etcd, fleet's API, systemctl show)
outputs.json   `terraform output -json` of that cluster
plan.json      `terraform show -json` of a plan that makes three machines
units/         two unit files, as they were when cluster.json was recorded
collected.txt  what collect.sh printed on the first of three machines, asked for the whole
green.json     a snapshot of such a cluster when nothing was wrong; read by snapshots.py
               (the entry point's routes were put into both later, as the files that it is configured with have them)
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import testinfra
import testinfra.host

from harness.drivers.machines import Machines
from harness.drivers.terraform import Outputs
from harness.errors import CommandFailed
from harness.record.log import Recorder

FOLDER = Path(__file__).parent
NAMES = ("coreos-0", "coreos-1", "coreos-2")
UNITS = ["blog.service", "entry.service"]
NOT_THERE = "ActiveState=inactive\nSubState=dead\n"
# what a command holds -> the subject whose transcript answers it
SUBJECTS = {
    "2379/v2/members": "etcd",
    "fleet/v1/units": "fleet/v1/units",
}


def document(name: str) -> Any:
    """A transcript that is JSON; a new copy at every call, so that a test may change it."""
    return json.loads((FOLDER / name).read_text())


class RecordedMachines(Machines):
    """The machines of the recorded cluster: they answer each command as they did, unless a test says otherwise.

    All but `run` and `[]` is inherited; each takes a connection, so the entry point is the way in, until it is lost.
    `on` changes an answer: the last one whose text occurs in the command counts.
    """

    def __init__(self) -> None:
        outputs = {name: output["value"] for name, output in document("outputs.json").items()}
        super().__init__(Outputs.read(outputs), Recorder(Path(os.devnull)))
        self._way_in._refusal = lambda name: None  # type: ignore[method-assign]
        self.recorded: dict[str, dict[str, str]] = document("cluster.json")
        self.asked: list[tuple[str, str]] = []
        self._answers: list[tuple[str, str | None, str | BaseException | Callable[[str], str]]] = []

    def on(
        self, text: str, answer: str | BaseException | Callable[[str], str], machine: str | None = None
    ) -> RecordedMachines:
        """What commands that hold `text` print (or raise) from now on, on one machine or on all."""
        self._answers.insert(0, (text, machine, answer))
        return self

    def fails(self, text: str, status: int, stderr: str, machine: str | None = None) -> RecordedMachines:
        """Commands that hold `text` end with this status from now on."""

        def fail(command: str) -> str:
            raise CommandFailed([command], status, "", stderr, where=machine or "")

        return self.on(text, fail, machine)

    def __getitem__(self, name: str) -> testinfra.host.Host:
        return testinfra.get_host("local://")  # only its quoting is used

    def run(self, name: str, command: str, *, data: bytes = b"", ok: Iterable[int] = (0,), kept: int = 0) -> str:
        self.asked.append((name, command))
        for text, machine, answer in self._answers:
            if text in command and machine in (None, name):
                if isinstance(answer, BaseException):
                    raise answer
                if isinstance(answer, str):
                    return answer
                try:
                    return answer(command)
                except CommandFailed as failed:
                    if int(failed.status_seen) in ok:
                        return failed.stdout
                    raise
        if command == "true":
            return ""
        if command.startswith("systemctl show"):
            return self._shown(name, command)
        subject = next((subject for text, subject in SUBJECTS.items() if text in command), "")
        assert name in self.recorded.get(subject, {}), f"no transcript of `{command}` on {name}"
        return self.recorded[subject][name]

    def _shown(self, name: str, command: str) -> str:
        """What systemd says of one unit: the values that are asked for, in its own order."""
        (unit,) = command.partition(" -- ")[2].split()
        recorded = self.recorded.get(f"systemctl show {unit}", {}).get(name, NOT_THERE)
        shown = (line.partition("=") for line in recorded.splitlines())
        return "".join(f"{value}\n" for name, _, value in shown if f"--property={name}" in command.split())


class FolderMachines(Machines):
    """Machines that are folders: each command runs for real, in /bin/sh, with /home/core rewritten to the folder.

    `before` is called with machine and command before each; what it raises is raised.
    """

    def __init__(self, root: Path, names: Iterable[str] = NAMES) -> None:
        addresses = {name: f"192.0.2.{10 + index}" for index, name in enumerate(names)}
        super().__init__(
            Outputs(addresses["coreos-0"], addresses, "core", "", {}, "", tuple(addresses)), Recorder(Path(os.devnull))
        )
        self._way_in._refusal = lambda name: None  # type: ignore[method-assign]
        self.root = root
        self.before: Callable[[str, str], object] = lambda name, command: None
        for name in self.names:
            self.core(name).mkdir(parents=True)

    def core(self, name: str) -> Path:
        """What is /home/core on this machine."""
        return self.root / name

    def __getitem__(self, name: str) -> testinfra.host.Host:
        return testinfra.get_host("local://")  # only its quoting is used

    def run(self, name: str, command: str, *, data: bytes = b"", ok: Iterable[int] = (0,), kept: int = 0) -> str:
        self.before(name, command)
        here = command.replace("/home/core", str(self.core(name)))
        done = subprocess.run(["sh", "-c", here], input=data, capture_output=True)
        if done.returncode not in ok:
            raise CommandFailed([command], done.returncode, done.stdout.decode(), done.stderr.decode(), where=name)
        return done.stdout.decode()
