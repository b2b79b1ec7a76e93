"""Which machine is the way in to a cluster."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from harness.record.log import Recorder
from harness.seams import ssh
from harness.seams.patience import patience
from harness.seams.ssh import MachineUnreachable

# Seconds for which nobody asks again where every machine refused
REFUSAL_HOLDS = 0.1
# Seconds for a machine to take a connection, where another could be taken instead
TAKE_LIMIT = 2.0
# Seconds for which a machine that takes connections and says nothing, as a frozen one does, is no way in
REJECTED = 20.0


class WayIn:
    """The preferred machine, and while that takes no connection the first other that does.

    `counted` names the machines that may be one; `moved` is called when another one than before was chosen.
    """

    def __init__(
        self,
        addresses: Mapping[str, str],
        preferred: str,
        counted: Callable[[], list[str]],
        moved: Callable[[], None],
        recorder: Recorder,
    ) -> None:
        self._addresses = addresses
        self._preferred = preferred
        self._counted = counted
        self._moved = moved
        self._recorder = recorder
        self._name = self._before = ""
        self._doubted = False
        # no machine answered: until when (monotonic seconds) nobody asks again, and the error that is raised meanwhile
        self._nobody: tuple[float, MachineUnreachable] | None = None
        # machine -> until when it is no way in, and why
        self._rejected: dict[str, tuple[float, MachineUnreachable]] = {}
        self._choosing = threading.Lock()

    def name(self) -> str:
        """Raises MachineUnreachable, of the preferred one, when none answers."""
        with self._choosing:
            name = self._name  # which another thread, whose command failed, may doubt meanwhile
            if self._doubted and name and self._refusal(name) is not None:
                name = ""
            self._doubted = False
            if not name:
                name = self._name = self._choose()
                if name != self._before:
                    self._moved()
                self._before = name
            return name

    def doubt(self, failed: str) -> None:
        """A command on this machine failed: what it went through may be what is gone."""
        if failed == self._name:
            self._name = ""
        self._doubted = True

    def forget(self) -> None:
        """The same, also where none answered a moment ago: there are others now."""
        self._name, self._nobody = "", None
        self._rejected.clear()

    def reject(self, name: str, silent: MachineUnreachable) -> None:
        """A machine takes connections and says nothing, or reaches nobody: another one is the way in for a while."""
        with self._choosing:
            self._rejected[name] = time.monotonic() + REJECTED * patience(), silent
            self._name = "" if self._name == name else self._name

    def _rejection(self, name: str) -> MachineUnreachable | None:
        until, silent = self._rejected.get(name, (0.0, None))
        return silent if time.monotonic() < until else None

    def _choose(self) -> str:
        if self._nobody is not None and time.monotonic() < self._nobody[0]:
            raise self._nobody[1]  # who asked meanwhile need not wait for the same silence again
        counted = self._counted()
        rejected = {name: silent for name in counted if (silent := self._rejection(name))}
        if len(rejected) < len(counted):
            counted = [name for name in counted if name not in rejected]
        refused = rejected.get(self._preferred)
        if self._preferred in counted:
            refused = self._refusal(self._preferred)
        if refused is None and self._preferred in counted:
            return self._preferred
        others = [name for name in counted if name != self._preferred]
        pool = ThreadPoolExecutor(max_workers=32)
        try:
            for name, silent in zip(others, pool.map(self._refusal, others), strict=True):
                if silent is None:
                    if refused:
                        self._recorder.emit("note", text=f"{refused}; the way in is {name}")
                    return name
                refused = refused or silent
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # one answered: the silent ones are not waited for
        refused = refused or MachineUnreachable.of(self._preferred, "the entry point", OSError("it was taken away"))
        # a machine that boots refuses until its sshd is up, and to ask again costs nothing; silence costs the limit
        at_once = isinstance(refused.__cause__, ConnectionRefusedError)
        self._nobody = (time.monotonic() + (REFUSAL_HOLDS if at_once else ssh.CONNECT_LIMIT * patience()), refused)
        raise refused

    def _refusal(self, name: str) -> MachineUnreachable | None:
        """Why a machine takes no connection from here; None when it does."""
        try:
            limit = ssh.CONNECT_LIMIT if len(self._counted()) == 1 else min(TAKE_LIMIT, ssh.CONNECT_LIMIT)
            socket.create_connection((self._addresses[name], 22), limit * patience()).close()
        except OSError as failed:
            refusal = MachineUnreachable.of(name, "the entry point", failed)
            refusal.__cause__ = failed
            return refusal
        return None
