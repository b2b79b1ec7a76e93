"""The seam to the machines, over real SSH: tiny servers on loopback, of which one, unless a test says otherwise, can be
reached from here, and the others through it only."""

from __future__ import annotations

import contextlib
import errno
import io
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from paramiko import common

from harness.drivers.machines import Machines, open_ports
from harness.drivers.terraform import Outputs
from harness.drivers.way_in import REFUSAL_HOLDS
from harness.errors import CommandFailed, ExitStatus, PlatformWrong, WaitExpired
from harness.record.log import Recorder
from harness.seams import ssh as seam
from harness.seams.ssh import MachineBackend, MachineUnreachable
from harness.seams.wait import Waiter
from tests.fakes import FakeClock

# documentation addresses: that they are never connected to is part of the proof
ADDRESSES = {"coreos-0": "192.0.2.10", "coreos-1": "192.0.2.11", "coreos-2": "192.0.2.12"}
BIG = 3 * 1024 * 1024  # more than an SSH window


def new_key() -> paramiko.Ed25519Key:
    text = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return paramiko.Ed25519Key.from_private_key(io.StringIO(text))


CLIENT_KEY = new_key()
# how a command is typed that has no input: a shell of the machine gives it an end
WITHOUT_INPUT = ("{ ", "\n} </dev/null")


class Answering(paramiko.Transport):
    """A server's transport that knows when its answer to a command went out: a command that ends before that would
    close its channel before it was taken."""

    answered: Callable[[], None] = staticmethod(lambda: None)
    says: Callable[[Any], bool] = staticmethod(lambda _: True)

    def _send_message(self, data: Any) -> None:
        if self.says(data):
            super()._send_message(data)

    def _send_user_message(self, data: Any) -> None:
        super()._send_user_message(data)
        if data.asbytes()[:1] == common.cMSG_CHANNEL_SUCCESS:
            self.answered()


class Freezing:
    """A socket that says and hears nothing while its machine does not go on."""

    def __init__(self, stream: socket.socket, goes_on: threading.Event) -> None:
        self._stream, self._goes_on = stream, goes_on

    def recv(self, size: int) -> bytes:
        data = self._stream.recv(size)
        self._goes_on.wait()
        return data

    def send(self, data: bytes) -> int:
        self._goes_on.wait()
        return self._stream.send(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Server:
    """An SSH server. Its commands are few: see `execute`."""

    def __init__(self, name: str, routes: dict[str, Server]) -> None:
        self.name = name
        self.key = new_key()
        self.routes = routes  # address -> the server that a direct-tcpip channel to its port 22 reaches
        self.commands: list[str] = []
        self.logins: list[str] = []
        self.asked_for: list[tuple[str, int]] = []
        self.over = threading.Event()
        # cleared: it is frozen; it is cut off from the other machines
        self.goes_on, self.reaches = threading.Event(), threading.Event()
        self.goes_on.set()
        self.reaches.set()
        self.together = threading.Barrier(len(ADDRESSES))
        self.transports: list[paramiko.Transport] = []
        self._threads: list[threading.Thread] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = self._socket.getsockname()
        self.start(self._listen)

    def start(self, work: Callable[..., object], *args: Any) -> None:
        def run() -> None:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException, queue.Empty):
                work(*args)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        while True:
            self.serve(self._socket.accept()[0])

    def serve(self, stream: socket.socket) -> None:
        """Speaks SSH on a socket."""
        transport = Answering(Freezing(stream, self.goes_on))  # type: ignore[arg-type]
        self.transports.append(transport)
        transport.add_server_key(self.key)
        self.start(self._session, transport)

    def _session(self, transport: Answering) -> None:
        wishes = Wishes(self)
        transport.answered, transport.says = wishes.answered, wishes.says
        transport.start_server(server=wishes)
        while transport.is_active():
            channel = transport.accept(0.02)
            if channel is not None and channel.chanid in wishes.tunnels:
                near, far = socket.socketpair()
                other = wishes.tunnels[channel.chanid]
                other.serve(far)
                self.start(self._pump, channel, near, near.sendall, self.reaches, other.reaches)
                self.start(self._pump, near, near, channel.sendall, self.reaches, other.reaches)
            elif channel is not None:
                self.start(self._command, transport, channel, wishes.lines)

    def _pump(
        self, source: Any, near: socket.socket, send: Callable[[bytes], object], *passes: threading.Event
    ) -> None:
        try:
            while data := source.recv(65536):
                for it in passes:
                    it.wait()
                send(data)
        finally:
            with contextlib.suppress(OSError):
                near.shutdown(socket.SHUT_RDWR)
            if source is near:
                near.close()

    def _command(self, transport: paramiko.Transport, channel: paramiko.Channel, lines: dict[int, Any]) -> None:
        line = lines.setdefault(channel.chanid, queue.Queue()).get(timeout=5)
        before, behind = WITHOUT_INPUT
        without = line.startswith(before) and line.endswith(behind)
        line = line.removeprefix(before).removesuffix(behind)
        data = b"" if without else channel.makefile("rb").read()
        self.commands.append(line)
        self.execute(transport, channel, line, data)
        channel.close()

    def execute(self, transport: paramiko.Transport, channel: paramiko.Channel, line: str, data: bytes) -> None:
        match line.split():
            case ["true"]:
                channel.send_exit_status(0)
            case ["exit", status]:
                channel.sendall_stderr(b"as asked\n")
                channel.send_exit_status(int(status))
            case ["cat"]:
                channel.sendall(data)
                channel.send_exit_status(0)
            case ["whoami"]:
                channel.sendall(self.name.encode())
                channel.send_exit_status(0)
            case ["big"]:
                channel.sendall_stderr(b"e" * BIG)
                channel.sendall(b"o" * BIG)
                channel.send_exit_status(0)
            case ["meet"]:
                self.together.wait(5)
                channel.send_exit_status(0)
            case ["listen"]:
                channel.settimeout(0.2)
                try:
                    channel.sendall(b"an end" if channel.recv(1) == b"" else b"something")
                except TimeoutError:
                    channel.sendall(b"nothing")
                channel.send_exit_status(0)
            case ["hang"]:
                self.over.wait(10)
            case ["trickle"]:
                while not self.over.wait(0.05):
                    channel.sendall(b".")
            case ["shut"]:  # ends its streams, and goes on
                channel.shutdown_write()
                self.over.wait(10)
            case ["killed"]:  # by a signal: there is no exit status
                channel.sendall(b"half")
            case ["drop"]:
                channel.sendall(b"half")
                transport.close()

    def close(self) -> None:
        for event in (self.over, self.goes_on, self.reaches):
            event.set()
        self.together.abort()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with ThreadPoolExecutor() as pool:
            list(pool.map(_close, self.transports))
        for thread in self._threads:
            thread.join(5)


def _close(transport: paramiko.Transport) -> None:
    with contextlib.suppress(OSError, EOFError):  # what it runs over may be closed before it
        transport.close()


class Wishes(paramiko.ServerInterface):
    """What one connection may do: log in as core with the client's key, run commands, and tunnel to known machines."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.tunnels: dict[int, Server] = {}
        self.lines: dict[int, Any] = {}
        self.taken: list[tuple[int, str]] = []

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        if (username, key) != ("core", CLIENT_KEY):
            return common.AUTH_FAILED
        self.server.logins.append(username)
        return common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return common.OPEN_SUCCEEDED if kind == "session" else common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_direct_tcpip_request(self, chanid: int, origin: Any, destination: Any) -> int:
        self.server.asked_for.append(destination)
        if destination[0] not in self.server.routes:
            return common.OPEN_FAILED_CONNECT_FAILED
        self.tunnels[chanid] = self.server.routes[destination[0]]
        return common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.taken.append((channel.chanid, command.decode()))
        return True

    def says(self, data: Any) -> bool:
        """Who is cut off reaches nobody, is not reached, and does not say so."""
        if data.asbytes()[:1] != common.cMSG_CHANNEL_OPEN_SUCCESS:
            return True
        message = paramiko.Message(data.asbytes()[1:])
        message.get_int()
        other = self.tunnels.get(message.get_int())
        return other is None or (self.server.reaches.is_set() and other.reaches.is_set())

    def answered(self) -> None:
        while self.taken:
            number, line = self.taken.pop()
            self.lines.setdefault(number, queue.Queue()).put(line)


Cluster = dict[str, Server]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three machines, from each of which the others can be reached."""
    servers = {name: Server(name, {}) for name in ADDRESSES}
    for server in servers.values():
        server.routes |= {ADDRESSES[name]: other for name, other in servers.items() if other is not server}
        server.together = servers["coreos-0"].together
    yield servers
    with ThreadPoolExecutor() as pool:  # paramiko's threads look up ten times a second
        list(pool.map(Server.close, servers.values()))


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> dict[str, Any]:
    """Lets the real client find machines on loopback, where "at" says that they are (the others refuse), and log in
    with a key in the agent's place. "tried" has every connection from here."""
    connect, create_connection = paramiko.SSHClient.connect, socket.create_connection
    wanted: dict[str, Any] = {"pkey": CLIENT_KEY, "at": {"coreos-0": cluster["coreos-0"].address}, "tried": []}
    wanted["silence"] = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    def on_loopback(address: tuple[str, int], timeout: Any = None, **options: Any) -> socket.socket:
        name = next((name for name, known in ADDRESSES.items() if known == address[0]), "")
        if not name:
            return create_connection(address, timeout, **options)
        assert address[1] == 22
        wanted["tried"].append(name)
        if name not in wanted["at"]:
            raise wanted["silence"]
        return create_connection(wanted["at"][name], timeout)

    def elsewhere(self: paramiko.SSHClient, hostname: str, sock: Any = None, **options: Any) -> None:
        stream = sock or on_loopback((hostname, 22), 5)
        try:
            connect(self, hostname, sock=stream, **{**options, "pkey": wanted["pkey"], "allow_agent": False})
        except BaseException:
            self.close()
            stream.close()
            raise

    monkeypatch.setattr(paramiko.SSHClient, "connect", elsewhere)
    monkeypatch.setattr(socket, "create_connection", on_loopback)
    return wanted


def known(cluster: Cluster, **keys: paramiko.PKey) -> str:
    """known_hosts of the cluster, as the target hands it out; `keys` replaces keys of machines (coreos_1=...)."""
    pinned = {name: keys.get(name.replace("-", "_"), server.key) for name, server in cluster.items()}
    return "".join(f"{ADDRESSES[name]} {key.get_name()} {key.get_base64()} {name}\n" for name, key in pinned.items())


@pytest.fixture
def connect(
    cluster: Cluster, login: dict[str, Any], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Machines]]:
    """Makes the machines; from what the target hands out, unless other known_hosts are given."""
    monkeypatch.setattr(seam, "CONNECT_LIMIT", 2.0)
    made: list[Machines] = []

    def make(known_hosts: str | None = None, user: str = "core") -> Machines:
        pinned = known(cluster) if known_hosts is None else known_hosts
        made.append(
            Machines(Outputs(ADDRESSES["coreos-0"], ADDRESSES, user, pinned, {}, "", tuple(ADDRESSES)), recorder)
        )
        return made[-1]

    yield make
    for machines in made:
        machines.close()


Connect = Callable[..., Machines]
Events = Callable[..., list[dict[str, Any]]]


# -- who is refused --------------------------------------------------------------------------------------------------


def test_machine_with_another_host_key_is_refused_before_anything_is_sent(connect: Connect, cluster: Cluster) -> None:
    machines = connect(known(cluster, coreos_0=new_key()))

    with pytest.raises(MachineUnreachable, match="coreos-0 does not answer over SSH: Host key"):
        machines.run("coreos-0", "true")

    assert cluster["coreos-0"].logins == [] and cluster["coreos-0"].commands == []


def test_machine_without_a_known_host_key_is_refused(connect: Connect, cluster: Cluster) -> None:
    machines = connect("")

    with pytest.raises(MachineUnreachable, match=r"192\.0\.2\.10.* not found in known_hosts") as raised:
        machines.run("coreos-0", "true")
    assert raised.value.refused == "host key"

    assert cluster["coreos-0"].logins == []


def test_machine_behind_the_entry_point_with_another_host_key_is_refused(connect: Connect, cluster: Cluster) -> None:
    machines = connect(known(cluster, coreos_1=new_key()))

    with pytest.raises(MachineUnreachable, match="machine coreos-1"):
        machines.run("coreos-1", "true")

    assert cluster["coreos-0"].logins == ["core"]
    assert cluster["coreos-1"].logins == []


def test_key_of_one_machine_is_not_taken_for_another(connect: Connect, cluster: Cluster) -> None:
    machines = connect(known(cluster, coreos_1=cluster["coreos-2"].key))

    with pytest.raises(MachineUnreachable, match="machine coreos-1"):
        machines.run("coreos-1", "true")


def test_lines_of_known_hosts_that_say_nothing_are_passed_over(connect: Connect, cluster: Cluster) -> None:
    machines = connect("\n# remark\njunk\n" + known(cluster))

    assert machines.run("coreos-0", "whoami") == "coreos-0"


def test_user_who_may_not_log_in_is_refused(connect: Connect) -> None:
    with pytest.raises(MachineUnreachable, match="Authentication failed"):
        connect(user="mallory").run("coreos-0", "true")


def test_key_that_may_not_log_in_is_refused(connect: Connect, login: dict[str, Any]) -> None:
    login["pkey"] = new_key()

    with pytest.raises(MachineUnreachable, match="Authentication failed") as raised:
        connect().run("coreos-0", "true")
    assert raised.value.refused == "key"


# -- unreachable -----------------------------------------------------------------------------------------------------


def test_machine_that_refuses_the_connection(connect: Connect, login: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        login["at"]["coreos-0"] = closed.getsockname()

    with pytest.raises(MachineUnreachable, match=r"the entry point coreos-0.*refused") as raised:
        connect().run("coreos-0", "true")

    assert raised.value.where == "coreos-0"
    assert raised.value.status == ExitStatus.PLATFORM_WRONG


def test_machine_whose_port_says_nothing(
    connect: Connect, login: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seam, "CONNECT_LIMIT", 0.3)
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        login["at"]["coreos-0"] = silent.getsockname()
        with pytest.raises(MachineUnreachable, match="machine coreos-0"):
            connect().run("coreos-0", "true")

    assert time.monotonic() - started < 3


def test_machine_that_the_entry_point_cannot_reach(connect: Connect, cluster: Cluster) -> None:
    del cluster["coreos-0"].routes[ADDRESSES["coreos-2"]]

    with pytest.raises(MachineUnreachable, match="machine coreos-2"):
        connect().run("coreos-2", "true")


def test_machine_that_the_entry_point_cannot_reach_is_asked_directly(
    connect: Connect, cluster: Cluster, login: dict[str, Any], events: Events
) -> None:
    del cluster["coreos-0"].routes[ADDRESSES["coreos-2"]]
    login["at"]["coreos-2"] = cluster["coreos-2"].address

    assert connect().run("coreos-2", "whoami") == "coreos-2"
    (note,) = (event["text"] for event in events("note"))
    assert note == "coreos-0 does not reach coreos-2, which answers directly"


def test_machine_that_is_asked_directly_shows_the_key_that_is_pinned(
    connect: Connect, cluster: Cluster, login: dict[str, Any]
) -> None:
    del cluster["coreos-0"].routes[ADDRESSES["coreos-2"]]
    login["at"]["coreos-2"] = cluster["coreos-2"].address

    with pytest.raises(MachineUnreachable) as raised:
        connect(known(cluster, coreos_2=new_key())).run("coreos-2", "whoami")
    assert raised.value.refused == "host key" and cluster["coreos-2"].commands == []


def test_kept_connection_whose_way_is_gone_without_a_word_is_made_anew(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = connect()
    machines.run("coreos-2", "true")
    silent = machines["coreos-2"].backend.client.get_transport()
    monkeypatch.setattr(silent, "open_session", lambda timeout: (_ for _ in ()).throw(paramiko.SSHException("Timeout")))

    assert machines.run("coreos-2", "whoami") == "coreos-2"
    assert not silent.is_active()


def test_kept_connection_that_refuses_a_session_is_not_broken_off(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = connect()
    machines.run("coreos-2", "true")
    kept = machines["coreos-2"].backend.client.get_transport()
    refusal = paramiko.ChannelException(1, "Administratively prohibited")
    monkeypatch.setattr(kept, "open_session", lambda timeout: (_ for _ in ()).throw(refusal))

    with pytest.raises(MachineUnreachable, match="Administratively prohibited"):
        machines.run("coreos-2", "whoami")
    assert kept.is_active()


def test_command_that_does_not_end_in_time(connect: Connect, monkeypatch: pytest.MonkeyPatch, events: Events) -> None:
    monkeypatch.setattr(seam, "COMMAND_LIMIT", 0.3)
    started = time.monotonic()

    with pytest.raises(MachineUnreachable, match="machine coreos-0"):
        connect().run("coreos-0", "hang")

    assert time.monotonic() - started < 30  # a command may take 60
    assert [(event["command"], event["status"]) for event in events("remote")] == [("hang", "unreachable")]


def test_limit_that_meets_the_end_of_the_connection_says_nothing(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a thread raises would be printed over the display."""
    close = paramiko.Channel.close
    raised: list[object] = []

    def closing(channel: paramiko.Channel) -> None:
        close(channel)
        raise EOFError

    machines = connect()
    machines.run("coreos-0", "true")
    monkeypatch.setattr(threading, "excepthook", raised.append)
    monkeypatch.setattr(seam, "COMMAND_LIMIT", 0.3)
    monkeypatch.setattr(paramiko.Channel, "close", closing)
    with pytest.raises(MachineUnreachable):
        machines.run("coreos-0", "hang")

    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    for timer in timers:
        timer.join(5)
    assert raised == []


def test_machine_answers_again_after_a_command_that_did_not_end(
    connect: Connect, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seam, "COMMAND_LIMIT", 0.3)
    machines = connect()
    with pytest.raises(MachineUnreachable):
        machines.run("coreos-0", "hang")

    assert machines.run("coreos-0", "whoami") == "coreos-0"


def within(seconds: float, work: Callable[[], object]) -> BaseException | object:
    """What `work` gives or raises; "still at it" when it does not end in time (it is left to its fate then)."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as raised:  # noqa: BLE001
            outcome.append(raised)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else "still at it"


def test_command_that_prints_for_ever_does_not_end_in_time(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "COMMAND_LIMIT", 0.3)
    machines = connect()

    assert isinstance(within(0.8, lambda: machines.run("coreos-0", "trickle")), MachineUnreachable)


def test_command_that_ends_its_streams_and_goes_on(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "COMMAND_LIMIT", 0.3)
    machines = connect()

    assert isinstance(within(0.8, lambda: machines.run("coreos-0", "shut")), MachineUnreachable)


def test_connection_that_drops_during_a_command_is_no_answer(connect: Connect) -> None:
    with pytest.raises(MachineUnreachable):
        connect().run("coreos-0", "drop")


def test_command_that_was_killed_is_a_failed_command(connect: Connect) -> None:
    with pytest.raises(CommandFailed) as raised:
        connect().run("coreos-0", "killed")

    assert raised.value.stdout == "half"


# -- commands --------------------------------------------------------------------------------------------------------


def test_command_that_fails_is_not_an_unreachable_machine(connect: Connect) -> None:
    with pytest.raises(CommandFailed) as raised:
        connect().run("coreos-1", "exit 7")

    assert not isinstance(raised.value, MachineUnreachable)
    assert (raised.value.status_seen, raised.value.stderr, raised.value.where) == (7, "as asked\n", "coreos-1")


@pytest.mark.parametrize("status", [0, 1, 3, 255])
def test_exit_status_is_passed_on(connect: Connect, status: int) -> None:
    assert connect()["coreos-0"].run(f"exit {status}").rc == status


def test_status_that_is_an_answer_is_not_raised(connect: Connect) -> None:
    assert connect().run("coreos-0", "exit 3", ok=(0, 3)) == ""


def test_status_zero_is_a_failure_when_it_is_no_answer(connect: Connect) -> None:
    with pytest.raises(CommandFailed):
        connect().run("coreos-0", "true", ok=(1,))


def test_machine_that_does_not_exist(connect: Connect) -> None:
    with pytest.raises(PlatformWrong, match="there is no machine coreos-9"):
        connect().run("coreos-9", "true")


def test_entry_point_that_is_no_machine(recorder: Recorder) -> None:
    with pytest.raises(PlatformWrong, match=r"entry point 192\.0\.2\.99 is no machine's address"):
        Machines(Outputs("192.0.2.99", ADDRESSES, "core", "", {}, "", ()), recorder)


def test_entry_point_that_is_fixed_leads_to_the_first_machine_that_is_one(recorder: Recorder) -> None:
    outputs = Outputs("192.0.2.99", ADDRESSES, "core", "", {}, "", ("coreos-1", "coreos-2"))

    assert Machines(outputs, recorder)._way_in._preferred == "coreos-1"


def test_both_streams_full_at_once_do_not_block(connect: Connect) -> None:
    result = connect()["coreos-0"].run("big")

    assert (len(result.stdout), len(result.stderr)) == (BIG, BIG)


def test_command_reads_the_data_it_is_given(connect: Connect) -> None:
    data = bytes(range(256)).replace(b"\x80", b"") + b"\nend"

    assert connect()["coreos-0"].backend.run_with_input("cat", data).stdout_bytes == data


def test_command_without_data_reads_an_end(connect: Connect) -> None:
    assert connect().run("coreos-0", "cat") == ""


def test_nothing_is_sent_behind_a_command_without_data(connect: Connect) -> None:
    """An end that paramiko sends when the channel is closed already makes sshd drop the whole connection."""
    assert connect().run("coreos-0", "listen") == "nothing"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("cat; echo end", "end\n"),
        ("echo a # a remark", "a\n"),
        ("echo a; exit 3; echo b", "a\n"),
        ("cat <<X\na\nX", "a\n"),
        ("sleep 0 &", ""),
        ("echo a | cat - /dev/stdin", "a\n"),
        ("(echo a; cat) && false || echo b", "a\nb\n"),
    ],
)
def test_command_without_data_means_the_same_to_a_shell(command: str, said: str) -> None:
    before, behind = WITHOUT_INPUT
    done = subprocess.run(["sh", "-c", f"{before}{command}{behind}"], capture_output=True, text=True, timeout=10)

    assert (done.stdout, done.stderr) == (said, "")
    assert done.returncode == (3 if "exit 3" in command else 0)


def test_much_data_arrives_whole(connect: Connect) -> None:
    assert len(connect().run("coreos-1", "cat", data=b"d" * BIG)) == BIG


def test_arguments_are_quoted(connect: Connect, cluster: Cluster) -> None:
    connect()["coreos-0"].run("exit %s", "it's; $HOME")

    assert cluster["coreos-0"].commands == ["exit 'it'\"'\"'s; $HOME'"]


def test_command_and_answer_are_recorded(connect: Connect, events: Events) -> None:
    with pytest.raises(CommandFailed):
        connect().run("coreos-1", "exit 7")

    (event,) = events("remote")
    assert (event["machine"], event["command"], event["status"]) == ("coreos-1", "exit 7", 7)
    assert (event["stdout"], event["stderr"]) == ("", "as asked\n")


def test_record_keeps_the_beginning_of_a_long_answer(connect: Connect, events: Events) -> None:
    connect().run("coreos-0", "big")

    (event,) = events("remote")
    assert len(event["stdout"]) == len(event["stderr"]) == 4096


def test_answer_that_is_no_text_is_read_as_far_as_it_is(connect: Connect) -> None:
    """A line may be cut within a character, and a container may say anything."""
    assert connect().run("coreos-0", "cat", data=b"said \xe2\x97 and \xff") == "said \ufffd and \ufffd"


def test_answer_that_is_kept_elsewhere_is_not_recorded(connect: Connect, events: Events) -> None:
    command = "whoami" + " " * 500

    assert connect().run("coreos-0", command, kept=0) == "coreos-0"
    (remote,) = events("remote")
    assert remote["command"] == f"{command[:60]} [...]" and remote["stdout"] == ""


def test_secrets_in_an_answer_are_not_recorded(connect: Connect, events: Events, redact: Any) -> None:
    redact.add("token", "correct-horse")

    connect().run("coreos-0", "cat", data=b"the token is correct-horse")

    assert events("remote")[0]["stdout"] == "the token is [token]"


# -- connections -----------------------------------------------------------------------------------------------------


def test_other_machines_are_reached_through_the_entry_point(connect: Connect, cluster: Cluster) -> None:
    assert connect().run("coreos-2", "whoami") == "coreos-2"

    assert cluster["coreos-0"].asked_for == [("192.0.2.12", 22)]
    assert cluster["coreos-0"].commands == []


def test_connection_is_kept_from_command_to_command(connect: Connect, cluster: Cluster) -> None:
    machines = connect()
    for _ in range(3):
        machines.run("coreos-1", "true")

    assert [len(server.logins) for server in cluster.values()] == [1, 1, 0]


def test_dropped_connection_is_made_again_for_the_next_command(connect: Connect, cluster: Cluster) -> None:
    machines = connect()
    with contextlib.suppress(PlatformWrong):
        machines.run("coreos-0", "drop")

    assert machines.run("coreos-0", "whoami") == "coreos-0"
    assert len(cluster["coreos-0"].logins) == 2


def test_dropped_entry_point_is_made_again_for_the_machine_behind_it(connect: Connect, cluster: Cluster) -> None:
    machines = connect()
    machines.run("coreos-1", "true")
    with contextlib.suppress(PlatformWrong):
        machines.run("coreos-0", "drop")

    def answer() -> str:
        try:
            return machines.run("coreos-1", "whoami")
        except MachineUnreachable:  # it met the connection that is just ending
            time.sleep(0.05)
            return ""

    assert any(answer() == "coreos-1" for _ in range(40))


def test_closed_machines_can_be_asked_again(connect: Connect, cluster: Cluster) -> None:
    machines = connect()
    machines.run("coreos-1", "true")
    machines.close()

    assert machines.run("coreos-1", "whoami") == "coreos-1"


def test_closing_never_raises(recorder: Recorder) -> None:
    class Dropping(paramiko.SSHClient):
        def close(self) -> None:
            raise EOFError  # seen with a machine whose tunnel was going down

    backend = MachineBackend("coreos-1", "core", lambda *_: Dropping(), recorder)
    assert isinstance(backend.client, Dropping)

    backend.close()


def test_everywhere_asks_side_by_side(connect: Connect) -> None:
    machines = connect()

    assert machines.on_all(lambda name: machines.run(name, "meet")) == dict.fromkeys(ADDRESSES, "")


def test_everywhere_tells_the_failure_of_one(connect: Connect, cluster: Cluster) -> None:
    machines = connect()
    del cluster["coreos-0"].routes[ADDRESSES["coreos-1"]]

    with pytest.raises(MachineUnreachable, match="coreos-1"):
        machines.on_all(lambda name: machines.run(name, "true"))

    assert cluster["coreos-2"].commands == ["true"]


def test_everywhere_makes_one_connection_a_machine(connect: Connect, cluster: Cluster) -> None:
    machines = connect()

    machines.on_all(lambda name: machines.run(name, "true"))

    assert [len(server.logins) for server in cluster.values()] == [1, 1, 1]


# -- the way in ------------------------------------------------------------------------------------------------------


@pytest.fixture
def all_at_hand(login: dict[str, Any], cluster: Cluster) -> dict[str, Any]:
    """Every machine can be reached from here."""
    login["at"] |= {name: server.address for name, server in cluster.items()}
    return login


def test_entry_point_that_answers_is_the_way_in(connect: Connect, all_at_hand: dict[str, Any], events: Events) -> None:
    machines = connect()

    assert machines.run("coreos-2", "whoami") == "coreos-2"
    assert machines.entry_point == "coreos-0"
    assert set(all_at_hand["tried"]) == {"coreos-0"}
    assert events("note") == []


def test_entry_point_that_refuses_gives_way_to_the_next_machine(
    connect: Connect, all_at_hand: dict[str, Any], cluster: Cluster, events: Events
) -> None:
    del all_at_hand["at"]["coreos-0"]
    machines = connect()

    assert machines.run("coreos-2", "whoami") == "coreos-2"
    assert machines.entry_point == "coreos-1"
    assert cluster["coreos-1"].asked_for == [("192.0.2.12", 22)]
    assert [len(server.logins) for server in cluster.values()] == [0, 1, 1]
    (note,) = events("note")
    assert note["text"].startswith("the entry point coreos-0 does not answer over SSH: ")
    assert note["text"].endswith("; the way in is coreos-1")


def test_machines_that_refuse_are_passed_over_for_the_way_in(
    connect: Connect, all_at_hand: dict[str, Any], cluster: Cluster
) -> None:
    for name in ("coreos-0", "coreos-1"):
        del all_at_hand["at"][name]
    machines = connect()

    assert machines.entry_point == "coreos-2"
    assert machines.run("coreos-1", "whoami") == "coreos-1"
    assert cluster["coreos-2"].asked_for == [("192.0.2.11", 22)]


def becomes_way_in(machines: Machines, name: str) -> bool:
    """What is asked around a way in does not wait for that to fail."""
    given_up = time.monotonic() + 2 * seam.CONNECT_LIMIT
    while machines.entry_point != name and time.monotonic() < given_up:
        time.sleep(0.02)
    return machines.entry_point == name


def test_entry_point_that_takes_connections_and_says_nothing_gives_way(
    connect: Connect, all_at_hand: dict[str, Any], cluster: Cluster, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    """As one does that is frozen: the kernel takes the connection."""
    monkeypatch.setattr(seam, "CONNECT_LIMIT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as frozen, ThreadPoolExecutor() as pool:
        all_at_hand["at"]["coreos-0"] = frozen.getsockname()
        machines = connect()
        began = time.monotonic()
        others = [pool.submit(machines.run, name, "whoami") for name in ("coreos-1", "coreos-2")]

        assert [answer.result() for answer in others] == ["coreos-1", "coreos-2"]
        assert time.monotonic() - began < 3  # one waits, for all
        assert becomes_way_in(machines, "coreos-1") and "; the way in is coreos-1" in events("note")[-1]["text"]


def test_entry_point_that_takes_connections_and_says_nothing_is_told_where_there_is_no_other(
    connect: Connect, login: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seam, "CONNECT_LIMIT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        login["at"] = {"coreos-0": frozen.getsockname()}
        with pytest.raises(MachineUnreachable) as raised:
            connect().run("coreos-1", "true")
    assert (raised.value.where, raised.value.refused) == ("coreos-0", "")


def test_entry_point_that_takes_no_connection_is_asked_through_the_way_in(
    connect: Connect, all_at_hand: dict[str, Any], cluster: Cluster
) -> None:
    del all_at_hand["at"]["coreos-0"]

    assert connect().run("coreos-0", "whoami") == "coreos-0"
    assert cluster["coreos-1"].asked_for == [("192.0.2.10", 22)]


def test_way_in_must_show_its_own_host_key(connect: Connect, all_at_hand: dict[str, Any], cluster: Cluster) -> None:
    del all_at_hand["at"]["coreos-0"]
    machines = connect(known(cluster, coreos_1=cluster["coreos-2"].key))

    with pytest.raises(MachineUnreachable, match="coreos-1 does not answer over SSH: Host key"):
        machines.run("coreos-2", "true")

    assert cluster["coreos-1"].logins == [] and cluster["coreos-2"].logins == []


def test_entry_point_with_another_host_key_does_not_give_way(
    connect: Connect, all_at_hand: dict[str, Any], cluster: Cluster
) -> None:
    """It answers: what is wrong with it must not be passed over."""
    machines = connect(known(cluster, coreos_0=new_key()))

    with pytest.raises(MachineUnreachable, match="coreos-0 does not answer over SSH: Host key") as raised:
        machines.run("coreos-1", "true")

    assert cluster["coreos-1"].logins == [] and raised.value.refused == "host key"


def test_when_nobody_answers_it_is_said_of_the_entry_point(connect: Connect, login: dict[str, Any]) -> None:
    login["at"].clear()
    machines = connect()

    for name in ADDRESSES:
        with pytest.raises(MachineUnreachable, match=r"the entry point coreos-0 .*refused") as raised:
            machines.run(name, "true")
        assert (raised.value.where, raised.value.status) == ("coreos-0", ExitStatus.PLATFORM_WRONG)


def test_when_nobody_answers_who_asks_meanwhile_is_told_at_once(
    connect: Connect, all_at_hand: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seam, "CONNECT_LIMIT", 1.0)
    at, all_at_hand["at"], all_at_hand["silence"] = all_at_hand["at"], {}, TimeoutError("timed out")
    machines = connect()
    with pytest.raises(MachineUnreachable) as first:
        machines.run("coreos-1", "true")
    tried = list(all_at_hand["tried"])
    assert sorted(tried) == sorted(ADDRESSES)
    all_at_hand["at"] = at

    with pytest.raises(MachineUnreachable) as again:
        machines.run("coreos-2", "true")
    assert str(again.value) == str(first.value)
    assert all_at_hand["tried"] == tried

    time.sleep(1)
    assert machines.run("coreos-2", "whoami") == "coreos-2"


def test_a_way_in_that_another_thread_forgets_meanwhile_is_still_one(
    connect: Connect, all_at_hand: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = connect()

    def forget() -> None:
        machines._way_in.doubt("coreos-0")  # as a command does that failed just now

    monkeypatch.setattr(machines, "close", forget)

    assert machines.entry_point == "coreos-0"


def test_machines_that_refuse_are_asked_again_at_once(connect: Connect, all_at_hand: dict[str, Any]) -> None:
    """They boot: their sshd is up in a moment."""
    at, all_at_hand["at"] = all_at_hand["at"], {}
    machines = connect()
    with pytest.raises(MachineUnreachable, match="refused"):
        machines.run("coreos-1", "true")
    all_at_hand["at"] = at
    time.sleep(REFUSAL_HOLDS)

    assert machines.run("coreos-2", "whoami") == "coreos-2"


def test_when_nobody_answers_each_machine_is_tried_once(connect: Connect, login: dict[str, Any]) -> None:
    login["at"].clear()
    machines = connect()

    def silent(name: str) -> bool:
        with pytest.raises(MachineUnreachable):
            machines.run(name, "true")
        return True

    assert machines.on_all(silent) == dict.fromkeys(ADDRESSES, True)
    assert sorted(login["tried"]) == sorted(ADDRESSES)  # though they are asked side by side


# -- machines that go, be it the way in or another one ----------------------------------------------------------------

GONE, LIMIT = "coreos-1", 1.0
Go = Callable[[], None]


@pytest.fixture
def going(all_at_hand: dict[str, Any], cluster: Cluster) -> dict[str, Go]:
    """The ways in which a machine goes, and no other one says so."""

    def off() -> None:
        cluster[GONE].goes_on.clear()
        cluster[GONE].reaches.clear()
        del all_at_hand["at"][GONE]

    def refuses() -> None:
        cluster[GONE].routes.clear()

    freezes, cut = cluster[GONE].goes_on.clear, cluster[GONE].reaches.clear
    return {"is off": off, "freezes": freezes, "is cut off": cut, "reaches nobody": refuses}


@pytest.mark.parametrize(
    ("goes", "way_in", "kept"),
    [
        *((goes, way_in, True) for goes in ("is off", "freezes", "is cut off") for way_in in ("coreos-0", GONE)),
        *((goes, GONE, False) for goes in ("freezes", "is cut off", "reaches nobody")),
        ("is cut off", "coreos-0", False),
    ],
)
def test_machines_that_are_well_answer_when_one_goes(
    connect: Connect,
    all_at_hand: dict[str, Any],
    cluster: Cluster,
    going: dict[str, Go],
    monkeypatch: pytest.MonkeyPatch,
    goes: str,
    way_in: str,
    kept: bool,
) -> None:
    monkeypatch.setattr(seam, "CONNECT_LIMIT", LIMIT)
    machines = connect()
    if way_in == GONE:  # as after the entry point was lost and came back
        first = all_at_hand["at"].pop("coreos-0")
        assert machines.entry_point == GONE
        all_at_hand["at"]["coreos-0"] = first
    if kept:
        machines.on_all(lambda name: machines.run(name, "true"))

    def asked(name: str) -> tuple[str, float]:
        began = time.monotonic()
        try:
            return machines.run(name, "whoami"), time.monotonic() - began
        except MachineUnreachable as silent:
            return f"silent: {silent.where}", time.monotonic() - began

    going[goes]()
    seen = machines.on_all(asked)

    silent = [GONE] if goes in ("is off", "freezes") else []
    assert {name: said for name, (said, _) in seen.items()} == {
        name: f"silent: {name}" if name in silent else name for name in ADDRESSES
    }
    assert max(took for _, took in seen.values()) < LIMIT + 0.5  # the ways' limits do not add up
    for name in machines.names:
        if name not in silent:
            assert asked(name)[1] < LIMIT * seam.DOUBTED_AFTER  # what was learnt is known
    assert becomes_way_in(machines, "coreos-0")


def test_question_that_nobody_answers_ends_within_its_limit(
    connect: Connect, all_at_hand: dict[str, Any], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is frozen, behind a way in that is cut off."""
    monkeypatch.setattr(seam, "CONNECT_LIMIT", LIMIT)
    machines = connect()
    machines.run("coreos-1", "true")
    cluster["coreos-0"].reaches.clear()
    cluster["coreos-1"].goes_on.clear()
    began = time.monotonic()

    with pytest.raises(MachineUnreachable) as raised:
        machines.run("coreos-1", "true")
    assert raised.value.where == "coreos-1" and time.monotonic() - began < LIMIT + 0.5


def test_machine_that_one_way_in_does_not_reach_leaves_it_the_way_in(
    connect: Connect, all_at_hand: dict[str, Any], cluster: Cluster
) -> None:
    """The others, it reaches."""
    machines = connect()
    machines.run("coreos-2", "true")
    cluster["coreos-0"].routes.pop(ADDRESSES["coreos-1"])

    assert machines.run("coreos-1", "whoami") == "coreos-1"
    assert machines.entry_point == "coreos-0"


def test_a_wait_asks_a_silent_machine_again_and_one_that_refuses_not(recorder: Recorder) -> None:
    def met(failed: Exception) -> Callable[[], str]:
        errors = [MachineUnreachable.of("coreos-1", "machine", failed)]

        def probe() -> str:
            if errors:
                raise errors.pop()
            return "up"

        return probe

    waiter = Waiter(recorder, FakeClock())
    assert waiter.until("it answers", met(TimeoutError("silent")), bool, within=5) == "up"
    with pytest.raises(MachineUnreachable, match="Authentication failed"):
        waiter.until("it answers", met(paramiko.AuthenticationException("Authentication failed.")), bool, within=5)
    with pytest.raises(WaitExpired, match="last seen: machine coreos-1 does not answer over SSH: silent"):
        waiter.until("it answers", met(TimeoutError("silent")), bool, within=0)


# -- machines that are taken away ------------------------------------------------------------------------------------


def test_lost_machine_is_not_counted(connect: Connect, cluster: Cluster) -> None:
    machines = connect()
    machines.lose("coreos-1")

    assert machines.names == ["coreos-0", "coreos-2"]
    assert machines.on_all(lambda name: machines.run(name, "whoami")) == {
        "coreos-0": "coreos-0",
        "coreos-2": "coreos-2",
    }
    assert cluster["coreos-1"].commands == []
    assert list(machines.addresses) == list(ADDRESSES)  # where it was is known


def test_way_in_that_is_lost_gives_way_to_another(
    connect: Connect, all_at_hand: dict[str, Any], cluster: Cluster, events: Events
) -> None:
    machines = connect()
    machines.run("coreos-2", "true")
    machines.lose("coreos-0")
    all_at_hand["tried"].clear()

    assert machines.entry_point == "coreos-1"
    assert machines.run("coreos-2", "whoami") == "coreos-2"
    assert "coreos-0" not in all_at_hand["tried"]
    assert cluster["coreos-1"].asked_for == [("192.0.2.12", 22)]
    assert events("note") == []  # this run took it away itself


def test_connection_through_a_lost_machine_is_not_used_again(
    connect: Connect, all_at_hand: dict[str, Any], cluster: Cluster
) -> None:
    machines = connect()
    machines.run("coreos-1", "true")
    machines.lose("coreos-0")
    machines.run("coreos-1", "true")

    assert cluster["coreos-0"].asked_for == [("192.0.2.11", 22)]
    assert [len(server.logins) for server in cluster.values()] == [1, 2, 0]


def test_when_all_that_are_left_are_silent_it_is_said(connect: Connect) -> None:
    machines = connect()
    machines.lose("coreos-0")

    with pytest.raises(MachineUnreachable, match="coreos-1 does not answer"):
        machines.run("coreos-2", "true")


def test_machine_that_is_regained_is_counted_and_the_way_in_again(
    connect: Connect, all_at_hand: dict[str, Any], cluster: Cluster
) -> None:
    machines = connect()
    machines.lose("coreos-0")
    machines.run("coreos-2", "true")
    machines.regain("coreos-0")

    assert machines.names == list(ADDRESSES)
    assert machines.entry_point == "coreos-0"
    assert machines.run("coreos-2", "whoami") == "coreos-2"
    assert cluster["coreos-0"].asked_for == [("192.0.2.12", 22)]


def test_silence_before_a_machine_came_back_is_not_believed_after(
    connect: Connect, login: dict[str, Any], cluster: Cluster
) -> None:
    login["at"].clear()
    machines = connect()
    machines.lose("coreos-1")
    with pytest.raises(MachineUnreachable):
        machines.run("coreos-2", "true")
    login["at"]["coreos-1"] = cluster["coreos-1"].address
    machines.regain("coreos-1")

    assert machines.run("coreos-2", "whoami") == "coreos-2"


# -- ports -----------------------------------------------------------------------------------------------------------


def test_open_ports_are_told_from_closed_ones() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_server(("127.0.0.1", 0)) as other:
        port, closed = listening.getsockname()[1], other.getsockname()[1]
        other.close()

        assert open_ports({"here": "127.0.0.1"}, [port, closed]) == {"here": [port]}


def test_ports_that_are_all_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    assert open_ports({"one": "127.0.0.1", "other": "127.0.0.1"}, [port]) == {"one": [], "other": []}
