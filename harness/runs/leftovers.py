"""What carries a run's id on this machine: after the teardown nothing may."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.errors import HarnessError
from harness.record.log import Recorder
from harness.seams.process import Runner


@dataclass(frozen=True)
class Leak:
    """One thing that a run left, and how it is removed."""

    what: str
    name: str
    remove: Callable[[], object]


class Leftovers:
    """Finds what a run left: containers, networks and volumes by label, processes by environment, mounts and folders
    by path. It looks only at what carries the id of this run, so other runs are never touched."""

    def __init__(
        self, process: Runner, recorder: Recorder, run_id: str, folder: Path, proc: Path = Path("/proc")
    ) -> None:
        self._process = process
        self._recorder = recorder
        self._run_id = run_id
        self._folder = folder
        self._proc = proc

    def sweep(self) -> None:
        """Reports each leak, and removes it: what holds goes before what is held, and the engine, which may be silent,
        is asked last."""
        for leak in self.leaks():
            try:
                leak.remove()
                removed = True
            except ProcessLookupError:
                continue  # it ended by itself meanwhile
            except (HarnessError, OSError):
                removed = False
            self._recorder.emit("leak", what=leak.what, name=leak.name, removed=removed)

    def end_processes(self) -> None:
        """Ends the run's processes, but for its agent."""
        for leak in self._processes():
            if leak.what == "process":
                with contextlib.suppress(ProcessLookupError):
                    leak.remove()

    def leaks(self) -> Iterator[Leak]:
        seen: set[str] = set()
        # a process that just becomes another program shows no environment: one that was missed is found the next time
        while fresh := [leak for leak in self._processes() if leak.name.partition(" ")[0] not in seen]:
            seen |= {leak.name.partition(" ")[0] for leak in fresh}
            yield from fresh
        yield from self._mounts()
        for folder in Path(tempfile.gettempdir()).glob(f"platform-{self._run_id}-*"):
            yield Leak("folder", str(folder), partial(shutil.rmtree, folder))
        if shutil.which("docker"):
            yield from self._of_engine("container", ["ps", "--all"], ["rm", "--force", "--volumes"], "{{.Names}}")
            yield from self._of_engine("network", ["network", "ls"], ["network", "rm"], "{{.Name}}")
            yield from self._of_engine("volume", ["volume", "ls"], ["volume", "rm", "--force"], "{{.Name}}")

    def _of_engine(self, what: str, ls: list[str], rm: list[str], name: str) -> Iterator[Leak]:
        label = f"label=platform.run={self._run_id}"
        listed = self._process.run(["docker", *ls, "--filter", label, "--format", name], within=60).stdout.split()
        for found in listed:
            yield Leak(what, found, partial(self._process.run, ["docker", *rm, found], within=60))

    def _processes(self) -> Iterator[Leak]:
        mark = f"PLATFORM_RUN={self._run_id}".encode()
        for entry in sorted(self._proc.glob("[0-9]*")):
            try:
                if mark not in (entry / "environ").read_bytes().split(b"\0") or int(entry.name) == os.getpid():
                    continue
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue  # it ended meanwhile, or belongs to another user
            what = "ssh-agent" if Path(command.partition(" ")[0]).name == "ssh-agent" else "process"
            number = int(entry.name)
            yield Leak(what, f"{number} {command}", partial(os.kill, number, signal.SIGKILL))

    def _mounts(self) -> Iterator[Leak]:
        for line in (self._proc / "self/mountinfo").read_text().splitlines():
            # blanks and the like are written as three octal digits (proc(5))
            mountpoint = re.sub(r"\\([0-7]{3})", lambda digits: chr(int(digits[1], 8)), line.split()[4])
            if self._run_id in mountpoint:
                yield Leak("mount", mountpoint, partial(self._process.run, ["umount", "--lazy", mountpoint]))
