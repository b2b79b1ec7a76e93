"""Power: a machine that is lost, and one that comes back, as the target does it (infra/TARGET/target.json)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.errors import Misconfigured, ReadOnly
from harness.seams.process import Runner


class Power:
    """The power switch of the cluster's machines: no machine is asked, and none can tidy up."""

    def __init__(
        self, process: Runner, commands: Mapping[str, Sequence[str]], run_id: str, *, read_only: bool = False
    ) -> None:
        self._process = process
        self._commands = commands
        self._run_id = run_id
        self._read_only = read_only

    def off(self, machine: str) -> None:
        """As a power cut does it."""
        self._switch("off", machine)

    def on(self, machine: str) -> None:
        """It boots from the disk that it had."""
        self._switch("on", machine)

    def gone(self, machine: str) -> None:
        """The machine and its disk are no more."""
        self._switch("gone", machine)

    def _switch(self, way: str, machine: str) -> None:
        if self._read_only:
            raise ReadOnly(f"power {way} of {machine} is refused: this run must change nothing")
        if way not in self._commands:
            raise Misconfigured(f"target.json of this target has no command for power {way}: add it")
        self._process.run([part.format(run_id=self._run_id, machine=machine) for part in self._commands[way]])
