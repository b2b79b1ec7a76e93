"""What a target can do to machines and backing services from outside them, as its infra/TARGET/target.json says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.errors import Misconfigured, ReadOnly
from harness.seams.process import Runner


class Power:
    """The switches of a cluster's machines, or of its backing services: none is asked, and none can tidy up."""

    def __init__(
        self, process: Runner, commands: Mapping[str, Sequence[str]], run_id: str, *, read_only: bool = False
    ) -> None:
        self._process = process
        self._commands = commands
        self._run_id = run_id
        self._read_only = read_only

    def off(self, machine: str) -> None:
        """As a power cut does it."""
        self.switch("off", machine)

    def on(self, machine: str) -> None:
        """It boots from the disk that it had."""
        self.switch("on", machine)

    def gone(self, machine: str) -> None:
        """The machine and its disk are no more."""
        self.switch("gone", machine)

    def switch(self, way: str, machine: str) -> None:
        """`way` is `off`, `on`, `gone`, `freeze`, `thaw`, as far as the target has a command for it."""
        if self._read_only:
            raise ReadOnly(f"power {way} of {machine} is refused: this run must change nothing")
        if way not in self._commands:
            raise Misconfigured(f"target.json of this target has no command for power {way}: add it")
        self._process.run([part.format(run_id=self._run_id, machine=machine) for part in self._commands[way]])
