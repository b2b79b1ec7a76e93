"""Faults that are seeded on purpose, by drills and by scenarios: injected, and undone whatever happens meanwhile.

A fault is noted in the workplace before it is injected, and the note is gone when it is undone: who is interrupted
undoes it, and after a kill -9 the next command on the cluster does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shlex
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import files
from harness.drivers.cluster import Cluster
from harness.drivers.power import Power
from harness.drivers.shell import OperatorShell
from harness.drivers.terraform import target_data
from harness.errors import Misconfigured
from harness.seams.process import Runner
from harness.text import did_you_mean

FAULTS = Path(__file__).with_suffix(".toml")
# In the workplace: that its cluster was built to be broken; each fault that is injected; who injects holds the lock
FOR_DRILLS, NOTE, LOCK = "for-drills", "fault-{name}.json", "fault.lock"

OPERATOR, CONSOLE = "operator", "console of "
# How a place begins that is a switch of the target's -> where target.json has its commands
NETWORK = "network of "
SWITCHES = {"power of ": "power", NETWORK: "network", "backing ": "backing"}


@dataclass(frozen=True)
class Fault:
    """A fault as faults.toml describes it."""

    name: str
    layer: str
    on: str
    inject: str
    undo: str
    rule: str
    subject: str
    within: float = 20.0
    status: int = 1
    others: tuple[str, ...] = ()
    fills: str = ""


@dataclass(frozen=True)
class Seeded:
    """A fault that is injected: where (machines, `operator`, or a switch), what undoes it, and what is to be named."""

    name: str
    places: tuple[str, ...]
    undo: str
    subject: str


def read_faults(path: Path = FAULTS) -> list[Fault]:
    """Raises Misconfigured for a file that does not describe faults."""
    try:
        return [
            Fault(**{**fields, "others": tuple(fields.get("others", ()))})
            for fields in tomllib.loads(path.read_text())["fault"]
        ]
    except (ValueError, TypeError, KeyError) as wrong:
        raise Misconfigured(f"{path} does not describe faults: {wrong}") from wrong


def chosen_faults(faults: list[Fault], name: str | None, layer: str | None) -> list[Fault]:
    """Those of a name, or of a layer; all where neither is given. Raises Misconfigured when there are none."""
    found = [fault for fault in faults if name in (None, fault.name) and layer in (None, fault.layer)]
    if not found:
        names = sorted({fault.layer for fault in faults} if layer else {fault.name for fault in faults})
        near = did_you_mean(layer or name or "", names)
        raise Misconfigured(f"there is no fault {layer or name}: {near}there are {', '.join(names)}")
    return found


class Means:
    """What the target of a run's `folder` offers to seed faults by."""

    def __init__(self, folder: Path, shell: OperatorShell, process: Runner) -> None:
        data = target_data(shell.cwd / "infra" / shell.env["TARGET"])
        self.switches = {kind: Power(process, data.get(kind, {}), folder.name, shell.cwd) for kind in SWITCHES.values()}
        self.console: list[str] = data.get("console", [])
        self._can = {(beginning, way) for beginning, kind in SWITCHES.items() for way in data.get(kind, {})}
        self._fills: list[str] = data.get("fills", [])

    def lack(self, fault: Fault) -> str:
        """What this target cannot do, and the fault needs; "" where it can be seeded."""
        if fault.on.startswith(CONSOLE) and not self.console:
            return "this target's machines have no console"
        if fault.fills and fault.fills not in self._fills:
            return f"this target's machines have no disk of its own for {fault.fills}, to be filled"
        return self.lack_switch(fault.on, fault.inject, fault.undo)

    def lack_switch(self, place: str, *ways: str) -> str:
        """Why a place that is a switch cannot be switched so; "" where it can, or is none."""
        beginning, whose = _switch(place)
        none = [way for way in ways if beginning and (beginning, way) not in self._can]
        if none:
            return f"this target has no way to switch {place} {none[0]}"
        if (beginning, "try") in self._can and (refused := self.switches[SWITCHES[beginning]].refused(whose)):
            return f"{place} cannot be switched {ways[0]}: {refused}"
        return ""


class Seeding:
    """Injects faults into the cluster of a run's `folder`."""

    def __init__(self, folder: Path, cluster: Cluster, shell: OperatorShell, process: Runner) -> None:
        self._folder = folder
        self.means = Means(folder, shell, process)
        self.cluster = cluster
        self.shell = shell
        self._process = process

    @contextmanager
    def injected(self, fault: Fault) -> Iterator[Seeded]:
        """A fault, while this lasts."""
        places = self._places(fault.on)
        filled = {"machine": _switch(places[0])[1] or places[0]}
        if "{other_id}" in fault.inject:
            other = next(name for name in self.cluster.machines.names if name not in places)
            filled["other_id"] = self.cluster.machines.run(other, "cat /etc/machine-id").strip()
        seeded = Seeded(fault.name, places, _filled(fault.undo, filled), _filled(fault.subject, filled))
        files.put(_note(self._folder, fault.name), json.dumps(asdict(seeded)))
        try:
            self._run(places, _filled(fault.inject, filled))
            yield seeded
        finally:
            self.undo(seeded)

    def undo_noted(self) -> str:
        """Mends what somebody had broken who is there no more; the names, "" where there is none."""
        noted = _noted(self._folder)
        for seeded in noted:
            self.undo(seeded)
        return ", ".join(seeded.name for seeded in noted)

    def undo(self, seeded: Seeded) -> None:
        self._run(seeded.places, seeded.undo)
        _note(self._folder, seeded.name).unlink(missing_ok=True)

    def _places(self, on: str) -> tuple[str, ...]:
        beginning, whose = _switch(on)
        other, _, unit = whose.rpartition("unit ") if beginning else on.rpartition("unit ")
        if not on.endswith(f"unit {unit}"):
            return (on,) if on == OPERATOR or on.startswith((CONSOLE, *SWITCHES)) else tuple(on.split())
        running = self.cluster.units.machine_running(unit)
        machine = next(name for name in self.cluster.machines.names if (name != running) == bool(other))
        return (f"{beginning}{machine}",)

    def _run(self, places: Sequence[str], command: str) -> None:
        """On each place, whatever another raises; then raises that."""
        with contextlib.ExitStack() as every:
            for place in reversed(places):
                every.callback(self._run_on, place, command)

    def _run_on(self, place: str, command: str) -> None:
        beginning, name = _switch(place)
        if beginning:
            machines = self.cluster.machines.addresses if beginning == NETWORK else {}
            others = [address for other, address in machines.items() if other != name]
            self.means.switches[SWITCHES[beginning]].switch(command, name, others)
        elif place.startswith(CONSOLE):
            name, run_id = place.removeprefix(CONSOLE), self._folder.name
            words = [word.format(run_id=run_id, machine=name, command=command) for word in self.means.console]
            self._process.run(words, within=60)
        elif place == OPERATOR:
            environment = self.shell.env
            self._process.run(["bash", "-c", command], cwd=self.shell.cwd, env=environment, within=60)
        else:
            self.cluster.machines.run(place, f"sh -c {shlex.quote(command)}")


# Tells who looks what is broken on purpose: rules, each with its subject in words
Making = Callable[[list[tuple[str, str]]], contextlib.AbstractContextManager[None]]


class Injections:
    """The faults of one scenario: each is undone when the scenario says so, and when `put_back` closes."""

    def __init__(
        self, seeding: Seeding, change: Callable[[str], None], put_back: contextlib.ExitStack, making: Making
    ) -> None:
        self._seeding = seeding
        self._change = change
        self._making = making
        self._put_back = put_back
        self._under_way: dict[str, contextlib.ExitStack] = {}

    def inject(self, name: str) -> list[tuple[str, str]]:
        """What is to be named: rules, each with its subject in words; the first is the fault's own."""
        (fault,) = chosen_faults(read_faults(), name, None)
        self._change(f"fault {name} is injected")
        own = self._under_way[name] = self._put_back.enter_context(contextlib.ExitStack())
        subject = own.enter_context(self._seeding.injected(fault)).subject
        named = [
            (fault.rule, subject),
            *((rule, other) for rule, _, other in (it.partition(": ") for it in fault.others)),
        ]
        own.enter_context(self._making(named))
        return named

    def undo(self, name: str) -> None:
        self._change(f"fault {name} is undone")
        self._under_way.pop(name).close()


def _switch(place: str) -> tuple[str, str]:
    """How a place that is a switch begins, and whose it is; "" where it is none."""
    return next(((it, place.removeprefix(it)) for it in SWITCHES if place.startswith(it)), ("", ""))


def _filled(text: str, values: dict[str, str]) -> str:
    """Not by format(): commands have braces of their own."""
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


@contextmanager
def seeding_lock(folder: Path) -> Iterator[bool]:
    """Whether this process alone may seed faults, or undo them, on the cluster of a run folder; while this lasts."""
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def is_left_over(folder: Path) -> bool:
    """Whether somebody injected a fault and did not undo it, who is there no more."""
    if not _noted(folder):
        return False
    with seeding_lock(folder) as alone:
        return alone and bool(_noted(folder))


def _note(folder: Path, name: str) -> Path:
    return folder / NOTE.format(name=name)


def _noted(folder: Path) -> list[Seeded]:
    """What notes say; one that was cut off says nothing (nothing was injected yet)."""
    found = []
    for note in sorted(folder.glob(NOTE.format(name="*"))):
        with contextlib.suppress(ValueError, TypeError, LookupError, FileNotFoundError):
            fields = json.loads(note.read_text())
            found.append(Seeded(**{**fields, "places": tuple(fields["places"])}))
    return found
