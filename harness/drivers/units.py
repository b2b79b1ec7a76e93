"""Units: their files, and where they run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.drivers.machines import Machines
from harness.errors import AnswerNotUnderstood, Misconfigured, PlatformWrong
from harness.model.unit_file import Options, Refused, stored


@dataclass(frozen=True)
class UnitFile:
    """A unit file: its name and its options (section, name, value) in order, as fleet stores them."""

    name: str
    options: Options

    @classmethod
    def read(cls, path: Path) -> UnitFile:
        """Raises Misconfigured with file and line for what fleet would refuse, and for what cannot be read."""
        try:
            return cls(path.name, stored(path.read_bytes()))
        except Refused as refused:
            raise Misconfigured(f"{path}:{refused.line}: fleet refuses it: {refused.reason}") from refused
        except OSError as failed:
            raise Misconfigured(f"{path} cannot be read as a unit file: {failed.strerror}") from failed


def read_units(*folders: Path) -> list[UnitFile]:
    """The *.service files of these folders, as a shell finds them. fleet knows a unit by its base name: no two may
    share one. Raises Misconfigured."""
    # what begins with a dot is an editor's, and no shell's *.service
    paths = sorted(path for folder in folders for path in folder.glob("[!.]*.service"))
    for folder in folders:
        if not any(path.parent == folder for path in paths):
            raise Misconfigured(f"no *.service files in {folder}")
    names = [path.name for path in paths]
    for path in paths:
        if names.count(path.name) > 1:
            raise Misconfigured(f"{path}: another folder holds a unit of this name, and fleet would drop one of them")
    return [UnitFile.read(path) for path in paths]


@dataclass(frozen=True)
class UnitState:
    """What systemd says of a unit on one machine."""

    PROPERTIES: ClassVar = ("LoadState", "ActiveState", "SubState", "NRestarts")

    load: str
    active: str
    sub: str
    restarts: int

    @classmethod
    def read(cls, shown: str) -> UnitState:
        """Of what `systemctl show` prints of these properties. Raises AnswerNotUnderstood."""
        found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        try:
            load, active, sub, restarts = (found[name] for name in cls.PROPERTIES)
            return cls(load, active, sub, int(restarts))
        except (KeyError, ValueError) as junk:
            raise AnswerNotUnderstood("systemctl show", shown, f"no {', '.join(cls.PROPERTIES)}") from junk


class UnitStates:
    """What runs on the machines of a cluster."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    def machines_running(self, unit: str) -> list[str]:
        """Names of the machines on which this unit runs, whatever fleet believes: every machine is asked."""
        ask = f"systemctl show --value --property=ActiveState --property=SubState -- {shlex.quote(unit)}"
        shown = self._machines.on_all(lambda name: self._machines.run(name, ask).split())
        return sorted(name for name, state in shown.items() if state == ["active", "running"])

    def states(self, unit: str) -> dict[str, UnitState]:
        """Machine -> state of this unit, for every machine that knows anything of it. Raises AnswerNotUnderstood."""
        wanted = " ".join(f"--property={name}" for name in UnitState.PROPERTIES)
        ask = f"systemctl show {wanted} -- {shlex.quote(unit)}"
        states = self._machines.on_all(lambda name: UnitState.read(self._machines.run(name, ask)))
        return {name: it for name, it in states.items() if (it.load, it.active) != ("not-found", "inactive")}

    def status(self, unit: str, machine: str) -> str:
        """What systemd says of a unit on one machine, with its last words. Status 3 (it does not run) and 4 (it is not
        known) are answers."""
        return self._machines.run(machine, f"systemctl status --lines=20 -- {shlex.quote(unit)}", ok=(0, 3, 4))

    def machine_running(self, unit: str) -> str:
        """The one machine on which this unit runs. Raises PlatformWrong when it runs nowhere, or on several."""
        found = self.machines_running(unit)
        if len(found) != 1:
            raise PlatformWrong(
                f"{unit} runs on {', '.join(found) or 'no machine'}, not on one",
                expected="one machine",
                seen=", ".join(found) or "none",
                paste="fleetctl list-units",
            )
        return found[0]
