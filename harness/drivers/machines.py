"""The seam to the machines: every command on a machine passes one testinfra backend over paramiko.

The operator reaches the cluster through its entry point, the other machines through that, over one kept connection
each. Any machine can be the way in: when the entry point does not answer, the next one that does is taken.
Host keys are pinned: testinfra's own paramiko backend connects to an unknown key with a warning, this one refuses.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import paramiko
import testinfra.host
from testinfra.backend.base import CommandResult
from testinfra.backend.paramiko import ParamikoBackend

from harness.drivers.terraform import Outputs
from harness.errors import CommandFailed, HarnessError, PlatformWrong
from harness.record.log import Recorder
from harness.seams.patience import patience

T = TypeVar("T")

# What SSH met is told by MachineUnreachable; paramiko's threads would print tracebacks over the display as well.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

# Seconds for a connection (and for its banner and its authentication), and for a command to end
CONNECT_LIMIT = 5.0
COMMAND_LIMIT = 60.0
# Seconds for which nobody asks again where every machine refused
REFUSAL_HOLDS = 0.1


class MachineUnreachable(PlatformWrong):
    """SSH to a machine failed: the check could not be made, which is not the same as a check that is false."""

    @classmethod
    def of(cls, name: str, role: str, failed: BaseException) -> MachineUnreachable:
        reason = str(failed) or type(failed).__name__
        said = f"{role} {name} does not answer over SSH: {reason}"
        return cls(said, expected=f"an answer of {name}", seen=reason, where=name)


def _close(open_: paramiko.SSHClient | paramiko.Channel) -> None:
    """Never raises: closing may meet the end of what it runs over."""
    with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
        open_.close()


class MachineBackend(ParamikoBackend):  # type: ignore[misc]
    """testinfra's paramiko backend over a connection that it is given, recorded, with a limit for every command."""

    NAME = "machine"

    def __init__(self, name: str, user: str, connect: Callable[[], paramiko.SSHClient], recorder: Recorder) -> None:
        super().__init__(f"{user}@{name}")
        self._machine = name
        self._connect = connect
        self._recorder = recorder
        self._connection: paramiko.SSHClient | None = None
        self._connecting = threading.Lock()

    @property
    def client(self) -> paramiko.SSHClient:
        """The kept connection, made again where it dropped; threads that ask at once share one."""
        with self._connecting:
            connection = self._connection
            if connection is None or not _alive(connection):
                connection = self._connection = self._connect()
            return connection

    def close(self) -> None:
        """Never raises: over an entry point that is just going, closing meets its end.

        Waits for nobody who is connecting, which may go through the one who closes; who holds the connection already
        finds that it has ended.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            _close(connection)

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        return self.run_with_input(self.get_command(command, *args), b"")

    def run_with_input(self, command: str, data: bytes) -> CommandResult:
        """Runs a command that reads `data`; raises MachineUnreachable when SSH fails or the command does not end."""
        started = time.monotonic()
        status: int | str = "unreachable"
        stdout = stderr = b""
        try:
            exit_status, stdout, stderr, ended = self._exchange(command, data)
            limit = COMMAND_LIMIT * patience()
            # paramiko says -1 of a command that was killed, and also of one that it heard no end of
            if exit_status == -1 and time.monotonic() - started >= limit:
                raise TimeoutError(f"`{command}` did not end within {limit:g} s")
            if exit_status == -1 and not ended:
                raise EOFError("the connection dropped")
            status = exit_status
        except (paramiko.SSHException, OSError, EOFError) as failed:
            raise MachineUnreachable.of(self._machine, "machine", failed) from failed
        finally:
            self._recorder.emit(
                "remote",
                machine=self._machine,
                command=command,
                status=status,
                seconds=round(time.monotonic() - started, 3),
                stdout=stdout[:4096].decode(errors="replace"),
                stderr=stderr[:4096].decode(errors="replace"),
            )
        return self.result(status, command.encode(), stdout, stderr)

    def _exchange(self, command: str, data: bytes) -> tuple[int, bytes, bytes, bool]:
        """Exit status, both streams, and whether their end was heard."""
        transport = self.client.get_transport()
        assert transport is not None
        channel = transport.open_session(timeout=CONNECT_LIMIT * patience())
        channel.settimeout(COMMAND_LIMIT * patience())
        # Without input nothing is sent behind the command, not even its end: paramiko may send that after its
        # answer to a close that came meanwhile, and sshd then drops the connection, with all that goes through it.
        channel.exec_command((command if data else f"{{ {command}\n}} </dev/null").encode())
        # the channel's own limit is one between two bytes; closing it ends whatever still reads
        limit = threading.Timer(COMMAND_LIMIT * patience(), _close, [channel])
        limit.start()
        try:
            if data:
                channel.sendall(data)
                channel.shutdown_write()
            # both streams at once: a command that fills one's window would wait for ever
            with ThreadPoolExecutor(1) as pool:
                errors = pool.submit(channel.makefile_stderr("rb").read)
                stdout, stderr = channel.makefile("rb").read(), errors.result()
            return channel.recv_exit_status(), stdout, stderr, bool(channel.eof_received)
        finally:
            limit.cancel()


class Machines:
    """The machines of a cluster, by name, as the target's outputs name them."""

    def __init__(self, outputs: Outputs, recorder: Recorder) -> None:
        # by number: coreos-2 before coreos-10
        self.addresses: Mapping[str, str] = dict(sorted(outputs.machines.items(), key=lambda it: (len(it[0]), it[0])))
        entry_points = [name for name, address in outputs.machines.items() if address == outputs.entry_point]
        if not entry_points:
            raise PlatformWrong(
                f"the entry point {outputs.entry_point} is no machine's address",
                expected=f"one of {sorted(outputs.machines.values())}",
                seen=outputs.entry_point,
                paste="terraform output",
            )
        self._preferred = entry_points[0]
        self._lost: set[str] = set()
        self._way_in = self._connected_through = ""
        # no machine answered: until when (monotonic seconds) nobody asks again, and the error that is raised meanwhile
        self._nobody: tuple[float, MachineUnreachable] | None = None
        self._choosing = threading.Lock()
        self._recorder = recorder
        self._user = outputs.ssh_user
        self._known_hosts = outputs.known_hosts
        self._backends = {
            name: MachineBackend(name, self._user, lambda name=name: self._connect(name), recorder)  # type: ignore[misc]
            for name in outputs.machines
        }
        self._hosts = {name: testinfra.host.Host(backend) for name, backend in self._backends.items()}
        for name, backend in self._backends.items():
            backend.set_host(self._hosts[name])

    @property
    def names(self) -> list[str]:
        """The machines that are counted: all but those that this run itself took away."""
        return [name for name in self.addresses if name not in self._lost]

    def lose(self, name: str) -> None:
        """This run takes a machine away: it is not counted, and no connection goes through it."""
        self._lost.add(name)
        self._forget_connections()

    def regain(self, name: str) -> None:
        """The machine is counted again."""
        self._lost.discard(name)
        self._forget_connections()

    @property
    def entry_point(self) -> str:
        """The machine that is the way in: the entry point, and while that does not answer the first other that does.

        Raises MachineUnreachable, of the entry point, when none answers.
        """
        with self._choosing:
            way_in = self._way_in  # which another thread, whose command failed, may forget meanwhile
            if not way_in:
                way_in = self._way_in = self._choose()
                if way_in != self._connected_through:
                    self.close()  # what went through another machine goes nowhere
                self._connected_through = way_in
            return way_in

    def _choose(self) -> str:
        if self._nobody is not None and time.monotonic() < self._nobody[0]:
            raise self._nobody[1]  # who asked meanwhile need not wait for the same silence again
        refused = None if self._preferred in self._lost else self._refusal(self._preferred)
        if refused is None and self._preferred not in self._lost:
            return self._preferred
        others = [name for name in self.names if name != self._preferred]
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
        self._nobody = (time.monotonic() + (REFUSAL_HOLDS if at_once else CONNECT_LIMIT * patience()), refused)
        raise refused

    def _refusal(self, name: str) -> MachineUnreachable | None:
        """Why a machine takes no connection from here; None when it does."""
        try:
            socket.create_connection((self.addresses[name], 22), CONNECT_LIMIT * patience()).close()
        except OSError as failed:
            refusal = MachineUnreachable.of(name, "the entry point", failed)
            refusal.__cause__ = failed
            return refusal
        return None

    def _forget_connections(self) -> None:
        """Every connection, and the way in, is made again when it is next needed."""
        self._way_in, self._nobody = "", None
        self.close()

    def __getitem__(self, name: str) -> testinfra.host.Host:
        """The testinfra host of a machine."""
        if name not in self._hosts:
            raise PlatformWrong(f"there is no machine {name}", expected=name, seen=", ".join(self.names))
        return self._hosts[name]

    def run(self, name: str, command: str, *, data: bytes = b"", ok: Iterable[int] = (0,)) -> str:
        """What a command on a machine prints. Raises CommandFailed for a status not in `ok`."""
        if name not in self._backends:
            self[name]  # says which machines there are
        try:
            result = self._backends[name].run_with_input(command, data)
        except MachineUnreachable:
            self._way_in = ""  # it may be what went: the next command looks for one that answers
            raise
        if result.rc not in ok:
            raise CommandFailed([command], result.rc, result.stdout, result.stderr, where=name)
        return str(result.stdout)

    def on_all(self, ask: Callable[[str], T]) -> dict[str, T]:
        """`ask(name)` for every machine, side by side: machine -> answer. The first error is raised."""
        with ThreadPoolExecutor(max_workers=32) as pool:
            answers = {name: pool.submit(ask, name) for name in self.names}
        return {name: answer.result() for name, answer in answers.items()}

    def unreachable(self) -> dict[str, str]:
        """Machine -> why it does not answer, of those that do not."""

        def ask(name: str) -> str:
            try:
                self.run(name, "true")
            except HarnessError as failed:
                return str(failed)
            return ""

        return {name: reason for name, reason in self.on_all(ask).items() if reason}

    def host_keys(self) -> dict[str, str]:
        """Machine -> the host key that its sshd showed when it was connected to, in base64."""

        def key(name: str) -> str:
            self.run(name, "true")
            transport = self._backends[name].client.get_transport()
            assert transport is not None
            return transport.get_remote_server_key().get_base64()

        return self.on_all(key)

    def close(self) -> None:
        for name in reversed(list(self.addresses)):
            self._backends[name].close()

    def _connect(self, name: str) -> paramiko.SSHClient:
        address, limit = self.addresses[name], CONNECT_LIMIT * patience()
        way_in = self.entry_point
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        _pin(client, self._known_hosts)
        sock = None
        if name != way_in:
            transport = self._through(way_in)
            sock = transport.open_channel("direct-tcpip", (address, 22), ("127.0.0.1", 0), timeout=limit)
        client.connect(
            address,
            username=self._user,
            sock=sock,
            timeout=limit,
            banner_timeout=limit,
            auth_timeout=limit,
            look_for_keys=False,
            allow_agent="SSH_AUTH_SOCK" in os.environ,
        )
        return client

    def _through(self, way_in: str) -> paramiko.Transport:
        """The kept connection to the machine that the others are reached through."""
        try:
            transport = self._backends[way_in].client.get_transport()
        except (paramiko.SSHException, OSError, EOFError) as failed:
            raise MachineUnreachable.of(way_in, "the entry point", failed) from failed
        assert transport is not None
        return transport


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


def _pin(client: paramiko.SSHClient, known_hosts: str) -> None:
    keys = client.get_host_keys()
    for line in io.StringIO(known_hosts):
        entry = paramiko.hostkeys.HostKeyEntry.from_line(line)
        if entry is not None and entry.key is not None:
            for name in entry.hostnames or ():
                keys.add(name, entry.key.get_name(), entry.key)


def _alive(client: paramiko.SSHClient) -> bool:
    transport = client.get_transport()
    return transport is not None and transport.is_active()
