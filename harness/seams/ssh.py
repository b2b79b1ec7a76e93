"""The seam to machines: every command on one passes a testinfra backend over paramiko, over one kept connection.

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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import paramiko
from paramiko import SSHClient as Client
from paramiko import Transport
from testinfra.backend.base import CommandResult
from testinfra.backend.paramiko import ParamikoBackend
from testinfra.host import Host

from harness.errors import PlatformWrong
from harness.record.log import Recorder
from harness.seams.background import first_of
from harness.seams.patience import patience
from harness.seams.wait import NotYet

T = TypeVar("T")

# What SSH met is told by MachineUnreachable; paramiko's threads would print tracebacks over the display as well.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

# Seconds for a session on a machine, whatever it takes to have one: for its connection, by all the ways to it, the
# connection's banner and its authentication. And for a command to end
CONNECT_LIMIT = 5.0
COMMAND_LIMIT = 60.0
# The part of CONNECT_LIMIT after which another way is tried beside one that says nothing
DOUBTED_AFTER = 0.4
# The part of it that who is asked for another's sake has less: its own silence is told then, and not the other's
LESS = 0.1

AGENT_LIMIT = 2.0
# Bytes of a stream that the record keeps; and of a command whose answer is kept elsewhere
KEPT, SHOWN = 4096, 60
# To an ssh-agent, and from it: SSH_AGENTC_REQUEST_IDENTITIES, SSH_AGENT_IDENTITIES_ANSWER (draft-ietf-sshm-ssh-agent).
# paramiko's own Agent has no time limit.
LIST_KEYS, KEYS_LISTED = b"\x00\x00\x00\x01\x0b", b"\x0c"

# What sshd says when it ends a connection that offered more keys than it lets be tried, and what a person is told then
GIVEN_UP = "Too many authentication failures"
TOO_MANY = "the agent offers too many keys"
# What a connection that fails raises
FAILURES = (paramiko.SSHException, OSError, EOFError)


class NoWay(OSError):
    """The machine on the way answers, and reaches the other one not."""


__all__ = [
    "FAILURES",
    "Client",
    "Host",
    "MachineBackend",
    "MachineSilent",
    "MachineUnreachable",
    "NoWay",
    "Transport",
    "connect",
    "first_answer",
    "keys_in_agent",
    "less",
    "transport_of",
]


class MachineUnreachable(PlatformWrong):
    """SSH to a machine failed: the check could not be made, which is not the same as a check that is false.

    `refused` is `key` where sshd takes none of the operator's keys, `too many keys` where it gave up before the right
    one, `host key` where the machine shows another one than is pinned for it, and "" where it does not answer; `where`
    is the machine, which may be the one on the way.
    """

    refused = ""

    @classmethod
    def of(cls, name: str, role: str, failed: BaseException) -> MachineUnreachable:
        reason = str(failed) or type(failed).__name__
        refused = _refused(failed)
        unreachable = (cls if refused else MachineSilent)(
            f"{role} {name} does not answer over SSH: {reason}",
            expected=f"an answer of {name}",
            seen=reason,
            where=name,
        )
        unreachable.refused = refused
        return unreachable


class MachineSilent(MachineUnreachable, NotYet):
    """It does not answer: it may be on its way, and a wait asks again."""


def _refused(failed: BaseException) -> str:
    """How a machine that answers refuses (see MachineUnreachable); "" where it does not."""
    reason = str(failed)
    if isinstance(failed, MachineUnreachable):
        return failed.refused
    if isinstance(failed, paramiko.BadHostKeyException) or "not found in known_hosts" in reason:
        return "host key"
    if TOO_MANY in reason:
        return "too many keys"
    if isinstance(failed, paramiko.AuthenticationException) or "No authentication methods" in reason:
        return "key"
    return ""


def first_answer(
    ways: Sequence[Callable[[], T]], ends: float, leave: Callable[[T], object], *, at_once: bool = False
) -> T:
    """What the first of several ways to a machine gives by then (seconds of the monotonic clock); each begins where the
    one before it fails or says nothing for a while, or `at_once`. One that refuses answers: that is not passed over."""
    after = 0.0 if at_once else CONNECT_LIMIT * DOUBTED_AFTER * patience()
    return first_of(
        ways,
        after,
        ends,
        leave=leave,
        answers=lambda it: isinstance(it, paramiko.ChannelException) or bool(_refused(it)),
    )


def less(ends: float) -> float:
    """By when one answers who is asked for the sake of who is to answer by then."""
    return ends - CONNECT_LIMIT * LESS * patience()


def close(open_: Client | paramiko.Channel) -> None:
    """Never raises: closing may meet the end of what it runs over."""
    with contextlib.suppress(*FAILURES):
        open_.close()


class MachineBackend(ParamikoBackend):  # type: ignore[misc]
    """testinfra's paramiko backend over a connection that it is given, recorded, with a limit for every command."""

    NAME = "machine"

    def __init__(self, name: str, user: str, connect: Callable[[float, bool], Client], recorder: Recorder) -> None:
        """`connect` makes a connection by a time, and is told whether one was there that says nothing."""
        super().__init__(f"{user}@{name}")
        self.testinfra_host = Host(self)
        self.set_host(self.testinfra_host)
        self._machine = name
        self._connect = connect
        self._recorder = recorder
        self._connection: Client | None = None
        self._connecting = threading.Lock()
        # when the last try failed (monotonic seconds), and how
        self._failed: tuple[float, Exception] | None = None

    @property
    def client(self) -> Client:
        """The kept connection, made again where it dropped."""
        return self.connected(time.monotonic() + CONNECT_LIMIT * patience())

    def connected(self, ends: float, silent: Client | None = None) -> Client:
        """The kept connection, made again by then (seconds of the monotonic clock) where it dropped, or is this one,
        which says nothing; threads that ask at once share one, and its failure."""
        asked = time.monotonic()
        with self._connecting:
            connection = self._connection
            alive = connection is not None and _alive(connection)
            if connection is not None and alive and connection is not silent:
                return connection
            if self._failed is not None and self._failed[0] > asked:
                raise self._failed[1]  # who waited for that try need not wait for another
            try:
                connection = self._connection = self._connect(ends, alive)
            except (*FAILURES, MachineUnreachable) as failed:
                self._failed = time.monotonic(), failed
                raise
            return connection

    def close(self) -> None:
        """Never raises: over an entry point that is just going, closing meets its end.

        Waits for nobody who is connecting, which may go through the one who closes; who holds the connection already
        finds that it has ended.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            close(connection)

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        return self.run_with_input(self.get_command(command, *args), b"")

    def run_with_input(self, command: str, data: bytes, kept: int = KEPT) -> CommandResult:
        """Runs a command that reads `data`; raises MachineUnreachable when SSH fails or the command does not end. The
        record keeps so many bytes of the command and of each stream."""
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
        except FAILURES as failed:
            raise MachineUnreachable.of(self._machine, "machine", failed) from failed
        finally:
            self._recorder.emit(
                "remote",
                machine=self._machine,
                command=command if len(command) <= max(kept, SHOWN) else f"{command[:SHOWN]} [...]",
                status=status,
                seconds=round(time.monotonic() - started, 3),
                stdout=stdout[:kept].decode(errors="replace"),
                stderr=stderr[:kept].decode(errors="replace"),
            )
        return self.result(status, command.encode(), stdout, stderr)

    def _session(self) -> paramiko.Channel:
        ends = time.monotonic() + CONNECT_LIMIT * patience()
        kept = self._connection
        if kept is None or not _alive(kept):
            return first_answer([partial(self._opened, ends)], ends, close)
        # its way may be gone, and nothing told so; nothing was sent yet
        session = first_answer([partial(self._opened_on, kept, ends), partial(self._opened, ends, kept)], ends, close)
        if session.get_transport() is not kept.get_transport():
            close(kept)
        return session

    def _opened(self, ends: float, silent: Client | None = None) -> paramiko.Channel:
        return _opened_on(self.connected(less(ends), silent))

    def _opened_on(self, kept: Client, ends: float) -> paramiko.Channel:
        try:
            return _opened_on(kept)
        except paramiko.ChannelException:
            raise  # it answers
        except FAILURES:
            return self._opened(ends, kept)

    def _exchange(self, command: str, data: bytes) -> tuple[int, bytes, bytes, bool]:
        """Exit status, both streams, and whether their end was heard."""
        channel = self._session()
        channel.settimeout(COMMAND_LIMIT * patience())
        # Without input nothing is sent behind the command, not even its end: paramiko may send that after its
        # answer to a close that came meanwhile, and sshd then drops the connection, with all that goes through it.
        channel.exec_command((command if data else f"{{ {command}\n}} </dev/null").encode())
        # the channel's own limit is one between two bytes; closing it ends whatever still reads
        limit = threading.Timer(COMMAND_LIMIT * patience(), close, [channel])
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


def connect(address: str, user: str, known_hosts: str, through: Transport | None = None) -> Client:
    """A new connection, straight or through another's transport; keys are those of the agent.

    Raises what paramiko and the socket raise, for a host key that is not pinned too; NoWay where the other one does not
    reach it.
    """
    limit = CONNECT_LIMIT * patience()
    client = Client()
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    _pin(client, known_hosts)
    sock = None
    if through is not None:
        try:
            sock = through.open_channel("direct-tcpip", (address, 22), ("127.0.0.1", 0), timeout=limit)
        except paramiko.SSHException as failed:
            raise NoWay(str(failed) or type(failed).__name__) from failed
    try:
        client.connect(
            address,
            username=user,
            sock=sock,
            timeout=limit,
            banner_timeout=limit,
            auth_timeout=limit,
            look_for_keys=False,
            # paramiko would wait for ever for one that says nothing
            allow_agent=keys_in_agent() is not None,
            transport_factory=_Hearing,  # type: ignore[arg-type]  # its stub takes a transport's own arguments only
        )
    except FAILURES as failed:
        transport = client.get_transport()
        client.close()
        if isinstance(transport, _Hearing) and GIVEN_UP in transport.farewell:
            raise paramiko.AuthenticationException(f"{TOO_MANY}: sshd gave up before the right one") from failed
        raise
    return client


class _Hearing(Transport):
    """Keeps what the other end says when it ends the connection, of which paramiko says only that it ended."""

    farewell = ""

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        self.farewell = message.get_remainder().decode(errors="replace")
        super()._parse_disconnect(message)  # type: ignore[misc]


def _pin(client: Client, known_hosts: str) -> None:
    keys = client.get_host_keys()
    for line in io.StringIO(known_hosts):
        entry = paramiko.hostkeys.HostKeyEntry.from_line(line)
        if entry is not None and entry.key is not None:
            for name in entry.hostnames or ():
                keys.add(name, entry.key.get_name(), entry.key)


def keys_in_agent() -> int | None:
    """How many keys the operator's ssh-agent holds; None where none answers."""
    path = os.environ.get("SSH_AUTH_SOCK", "")
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(AGENT_LIMIT)
        try:
            agent.connect(path)
            agent.sendall(LIST_KEYS)
            answer = agent.makefile("rb").read(9)
        except OSError:
            return None
    return int.from_bytes(answer[5:9], "big") if answer[4:5] == KEYS_LISTED else None


def _opened_on(client: Client) -> paramiko.Channel:
    return transport_of(client).open_session(timeout=CONNECT_LIMIT * patience())


def transport_of(client: Client) -> Transport:
    transport = client.get_transport()
    assert transport is not None
    return transport


def _alive(client: Client) -> bool:
    transport = client.get_transport()
    return transport is not None and transport.is_active()
