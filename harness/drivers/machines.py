"""The machines of a cluster.

The operator reaches them through the entry point, the other machines through that, over one kept connection each. Any
machine can be the way in: when the entry point does not answer, the next one that does is taken. One that the way in
does not reach is asked directly, which is said; a way in that does not reach most of the others is none.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from harness.drivers.terraform import Outputs
from harness.drivers.way_in import REJECTED, WayIn
from harness.errors import CommandFailed, PlatformWrong
from harness.record.log import Recorder
from harness.seams import ssh
from harness.seams.patience import patience
from harness.seams.ssh import Client, Host, MachineBackend, MachineUnreachable

T = TypeVar("T")


class Machines:
    """The machines of a cluster, by name, as the target's outputs name them."""

    def __init__(self, outputs: Outputs, recorder: Recorder) -> None:
        # by number: coreos-2 before coreos-10
        self.addresses: Mapping[str, str] = dict(sorted(outputs.machines.items(), key=lambda it: (len(it[0]), it[0])))
        if not outputs.way_in:
            raise PlatformWrong(
                f"the entry point {outputs.entry_point} is no machine's address",
                expected=f"one of {sorted(outputs.machines.values())}",
                seen=outputs.entry_point,
                paste="terraform output",
            )
        self._entry_points = outputs.entry_points
        self._lost: set[str] = set()
        self._way_in = WayIn(self.addresses, outputs.way_in, lambda: self.names, self._leave_way, recorder)
        # machine -> the one that its connection goes through: itself where it goes straight
        self._through: dict[str, str] = {}
        # machine -> until when it counts (monotonic seconds) that the way in did not reach it
        self._unreached: dict[str, float] = {}
        self._recorder = recorder
        self._user = outputs.ssh_user
        self._known_hosts = outputs.known_hosts
        self._backends = {
            name: MachineBackend(name, self._user, partial(self._connect, name), recorder) for name in outputs.machines
        }

    @property
    def names(self) -> list[str]:
        """The machines that are counted: all but those that this run itself took away."""
        return [name for name in self.addresses if name not in self._lost]

    @property
    def entry_points(self) -> list[str]:
        """Those of them that readers may come in through."""
        return [name for name in self.names if name in self._entry_points]

    def lose(self, name: str) -> None:
        """This run takes a machine away: it is not counted, and no connection goes through it."""
        self._lost.add(name)
        self._forget_connections()

    def avoid(self, silent: Iterable[str]) -> None:
        """These machines were silent just now: none of them is the way in, where there is another."""
        for name in silent:
            self._way_in.reject(name, MachineUnreachable.of(name, "the entry point", OSError("it was silent just now")))

    def regain(self, name: str) -> None:
        """The machine is counted again."""
        self._lost.discard(name)
        self._forget_connections()

    @property
    def entry_point(self) -> str:
        """The machine that is the way in: the entry point, and while that does not answer the first other that does.

        Raises MachineUnreachable, of the entry point, when none answers.
        """
        return self._way_in.name()

    def _forget_connections(self) -> None:
        """Every connection, and the way in, is made again when it is next needed."""
        self._way_in.forget()
        self.close()

    def __getitem__(self, name: str) -> Host:
        """The testinfra host of a machine."""
        if name not in self._backends:
            raise PlatformWrong(f"there is no machine {name}", expected=name, seen=", ".join(self.names))
        return self._backends[name].testinfra_host

    def run(self, name: str, command: str, *, data: bytes = b"", ok: Iterable[int] = (0,), kept: int = ssh.KEPT) -> str:
        """What a command on a machine prints, of which the record keeps `kept` bytes. Raises CommandFailed for a status
        not in `ok`."""
        if name not in self._backends:
            self[name]  # says which machines there are
        try:
            result = self._backends[name].run_with_input(command, data, kept)
        except MachineUnreachable:
            self._way_in.doubt(name)
            raise
        # what a program prints need not be text, and a line may be cut within a character
        stdout, stderr = (str(it, "utf-8", "replace") for it in (result.stdout_bytes, result.stderr_bytes))
        if result.rc not in ok:
            raise CommandFailed([command], result.rc, stdout, stderr, where=name)
        return stdout

    def on_all(self, ask: Callable[[str], T], names: Iterable[str] | None = None) -> dict[str, T]:
        """`ask(name)` for every machine, or those that are named, side by side: machine -> answer. The first error is
        raised."""
        with ThreadPoolExecutor(max_workers=32) as pool:
            answers = {name: pool.submit(ask, name) for name in (self.names if names is None else names)}
        return {name: answer.result() for name, answer in answers.items()}

    def close(self) -> None:
        for name in reversed(list(self.addresses)):
            self._backends[name].close()

    def _leave_way(self) -> None:
        """Another machine is the way in: what goes through the one before goes nowhere."""
        self._unreached.clear()
        for name, through in list(self._through.items()):
            if through != name:
                self._backends[name].close()

    def _connect(self, name: str, ends: float, silent: bool) -> Client:
        """A connection by then, through the way in; around it, where that says nothing, or reaches this machine not.
        `silent`: one is there that says nothing."""
        way_in = self.entry_point
        ways = [partial(self._directly, name)]
        if name != way_in:
            ways.insert(0, partial(self._by_way_in, way_in, name, ends))
        at_once = silent and self._through.pop(name, "") == way_in
        self._through[name], client = ssh.first_answer(ways, ends, lambda it: ssh.close(it[1]), at_once=at_once)
        self._weigh(way_in, name)
        return client

    def _directly(self, name: str) -> tuple[str, Client]:
        return name, ssh.connect(self.addresses[name], self._user, self._known_hosts)

    def _by_way_in(self, way_in: str, name: str, ends: float) -> tuple[str, Client]:
        """A connection through the kept one of the way in. Where that is silent, another one is it from now on."""
        try:
            through = ssh.transport_of(self._backends[way_in].connected(ssh.less(ends)))
        except ssh.FAILURES as failed:
            silent = MachineUnreachable.of(way_in, "the entry point", failed)
            # one that refuses answers: what is wrong with it is not passed over
            if not silent.refused:
                self._way_in.reject(way_in, silent)
            raise silent from failed
        try:
            return way_in, ssh.connect(self.addresses[name], self._user, self._known_hosts, through)
        except ssh.FAILURES:
            self._unreached[name] = time.monotonic() + REJECTED * patience()
            self._weigh(way_in, name)
            raise

    def _weigh(self, way_in: str, name: str) -> None:
        """Where the way in does not reach a machine that answers directly, one of the two is cut off; where that is so
        of most machines, it is the way in."""
        now = time.monotonic()
        around = [it for it in self.names if self._unreached.get(it, 0.0) > now and self._through.get(it) == it]
        if name not in around:
            return
        self._recorder.emit("note", text=f"{way_in} does not reach {name}, which answers directly")
        if 2 * len(around) > len(self.names) - 1:
            reason = OSError(f"it does not reach {', '.join(around)}")
            self._way_in.reject(way_in, MachineUnreachable.of(way_in, "the entry point", reason))


def open_ports(addresses: Mapping[str, str], ports: Iterable[int], within: float = 1.0) -> dict[str, list[int]]:
    """Machine -> those of the ports that take a TCP connection from here, where the operator is.

    A port that neither accepts nor refuses within `within` seconds counts as closed: filters drop silently.
    """
    within *= patience()

    def accepts(address: str, port: int) -> bool:
        try:
            with socket.create_connection((address, port), timeout=within):
                return True
        except OSError:
            return False

    # all at once: each closed port takes its whole second
    wanted = [(name, port) for name in addresses for port in ports]
    with ThreadPoolExecutor(max_workers=max(len(wanted), 1)) as pool:
        tries = {(name, port): pool.submit(accepts, addresses[name], port) for name, port in wanted}
    return {name: [port for port in ports if tries[name, port].result()] for name in addresses}
