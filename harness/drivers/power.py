"""What a target can do to machines, their network and backing services from outside them: infra/TARGET/target.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.errors import CommandFailed, Misconfigured, ReadOnly
from harness.seams.process import Runner

# Seconds for a switch; for what only tries whether there is one
SWITCH_LIMIT, TRY_LIMIT = 600.0, 15.0
SSH_FAILED = 255  # ssh's own exit status, where it is not the command's


class Power:
    """The switches of a cluster's machines, of their network, or of its backing services: none is asked, and none can
    tidy up. They are typed in `folder`, the operator's, which has an ssh_config for the machines."""

    def __init__(
        self,
        process: Runner,
        commands: Mapping[str, Sequence[str]],
        run_id: str,
        folder: Path | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        self._process = process
        self._commands = commands
        self._run_id = run_id
        self._folder = folder
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

    def freeze(self, machine: str) -> None:
        """It stands still, and notices nothing."""
        self.switch("freeze", machine)

    def thaw(self, machine: str) -> None:
        """It goes on where it was; one that was not frozen is left as it is."""
        self.switch("thaw", machine)

    def refused(self, whose: str = "") -> str:
        """Why that cannot be switched which the target's `try` checks; "" where it can. Raises CommandFailed where ssh
        did not come to ask."""
        try:
            self.switch("try", whose, within=TRY_LIMIT)
        except CommandFailed as failed:
            if failed.status_seen == SSH_FAILED:
                raise
            return (failed.stderr.strip() or str(failed)).splitlines()[0]
        return ""

    def switch(self, way: str, machine: str, others: Iterable[str] = (), within: float = SWITCH_LIMIT) -> None:
        """`way` is `off`, `on`, `gone`, `freeze`, `thaw`, `cut`, `deafen`, `thin`, `heal`, as far as the target has a
        command for it; `others` are the addresses that a machine's network is cut from."""
        if self._read_only:
            raise ReadOnly(f"power {way} of {machine} is refused: this run must change nothing")
        if way not in self._commands:
            raise Misconfigured(f"target.json of this target has no command for power {way}: add it")
        words = {"run_id": self._run_id, "machine": machine, "others": ", ".join(others)}
        self._process.run([part.format(**words) for part in self._commands[way]], cwd=self._folder, within=within)
