"""Units: their files, and what systemd says of them on the machines where fleet put them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.drivers.fleet import Fleet
from harness.drivers.machines import Machines
from harness.errors import AnswerNotUnderstood, Misconfigured, PlatformWrong
from harness.model.unit_file import Options, Refused, differences, stored

PROPERTIES = ("Id", "ActiveState", "SubState", "Result", "MainPID", "NRestarts")


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

    def differences(self, options: Options) -> list[str]:
        """What these options, which fleet holds of the unit, say otherwise than its file; a line for each."""
        return [f"{self.name}: {line}" for line in differences(self.options, options)]


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

    machine: str
    active: str
    sub: str
    result: str
    main_pid: str
    restarts: str

    @property
    def runs(self) -> bool:
        return (self.active, self.sub) == ("active", "running")

    @property
    def short(self) -> str:
        return (
            f"{self.active}/{self.sub} pid {self.main_pid} restarts {self.restarts} on {self.machine or 'no machine'}"
        )


class UnitStates:
    """What runs on the machines of a cluster."""

    def __init__(self, fleet: Fleet, machines: Machines) -> None:
        self._fleet = fleet
        self._machines = machines

    def now(self, units: Iterable[str]) -> dict[str, UnitState]:
        """Of these units: unit (with its machine behind an @ where fleet has it on several) -> state. A unit that is on
        no machine has a state that says so."""
        places = self._fleet.states()
        ours = set(self._machines.names)
        names_by_id = {machine.id: machine.name for machine in self._fleet.machines() if machine.name in ours}
        asked: dict[str, list[str]] = {}
        states: dict[str, UnitState] = {}
        for unit in sorted(units):
            on = sorted(names_by_id.get(machine_id, "") for machine_id in places.get(unit, ()))
            if not [name for name in on if name]:
                states[unit] = UnitState("", "unknown", "not placed", "", "0", "0")
            for machine in filter(None, on):
                asked.setdefault(machine, []).append(unit)
        answers = self._machines.on_all(lambda name: self._show(name, asked.get(name, [])))
        for machine, shown in answers.items():
            for unit, state in shown.items():
                states[unit if len(places[unit]) == 1 else f"{unit}@{machine}"] = state
        return states

    def machines_running(self, unit: str) -> list[str]:
        """Names of the machines on which this unit runs, whatever fleet believes: every machine is asked."""
        shown = self._machines.on_all(lambda name: self._show(name, [unit])[unit])
        return sorted(name for name, state in shown.items() if state.runs)

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

    def _show(self, machine: str, units: list[str]) -> dict[str, UnitState]:
        if not units:
            return {}
        ask = f"systemctl show --property={','.join(PROPERTIES)} -- {' '.join(units)}"
        states = {}
        for block in self._machines.run(machine, ask).strip().split("\n\n"):
            shown = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            try:
                states[shown["Id"]] = UnitState(machine, *(shown[name] for name in PROPERTIES[1:]))
            except KeyError as missing:
                raise AnswerNotUnderstood(f"systemctl show on {machine}", block, f"no {missing}") from missing
        return states
