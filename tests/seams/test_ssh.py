"""The operator's ssh-agent, asked without paramiko."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from harness.seams import ssh
from harness.seams.ssh import MachineUnreachable, connect, keys_in_agent


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real one, without a key."""
    if not shutil.which("ssh-agent"):
        pytest.skip("no ssh-agent on this machine")
    listens = tmp_path / "agent"
    monkeypatch.setenv("SSH_AUTH_SOCK", str(listens))
    with subprocess.Popen(["ssh-agent", "-D", "-a", listens], stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 20
        while not answers(listens):  # its socket is there before it listens
            assert process.poll() is None and time.monotonic() < end, "it does not listen"
            time.sleep(0.005)
        yield listens
        process.kill()


def answers(listens: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(listens)) == 0


def test_keys_of_an_agent_are_counted(agent: Path, tmp_path: Path) -> None:
    assert keys_in_agent() == 0
    for name in ("one", "two"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
        subprocess.run(["ssh-add", "-q", tmp_path / name], check=True, env={**os.environ})
    assert keys_in_agent() == 2


@pytest.mark.parametrize("path", ["", "/nowhere"])
def test_where_there_is_no_agent(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", path)

    assert keys_in_agent() is None


@pytest.mark.parametrize("answer", [b"", b"\x00\x00\x00\x01\x05", None])
def test_agent_that_says_something_else_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    monkeypatch.setattr(ssh, "AGENT_LIMIT", 0.1)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    with socket.socket(socket.AF_UNIX) as listens:
        listens.bind(str(tmp_path / "agent"))
        listens.listen()

        def serve() -> None:
            connection, _ = listens.accept()
            with connection:
                if answer is not None:
                    connection.sendall(answer)
                else:
                    connection.recv(99)
                    connection.recv(99)  # until the other side has given up

        thread = threading.Thread(target=serve)
        thread.start()
        assert keys_in_agent() is None
        thread.join()


class Strict(paramiko.ServerInterface):
    """sshd, which ends a connection at the third key that it does not know."""

    def __init__(self, transport: paramiko.Transport) -> None:
        self.transport, self.tried = transport, 0

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.tried += 1
        if self.tried == 3:
            farewell = paramiko.Message()
            farewell.add_byte(bytes([1]))
            farewell.add_int(2)
            farewell.add_string("Too many authentication failures")
            farewell.add_string("")
            self.transport._send_message(farewell)  # type: ignore[attr-defined]
            self.transport.close()
        return paramiko.AUTH_FAILED


@pytest.mark.parametrize(("keys", "refused"), [(2, "key"), (3, "too many keys"), (5, "too many keys")])
def test_agent_with_too_many_keys_is_told_as_that(
    agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: int, refused: str
) -> None:
    for name in map(str, range(keys)):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
        subprocess.run(["ssh-add", "-q", tmp_path / name], check=True)
    host = paramiko.ECDSAKey.generate()
    create_connection = socket.create_connection
    with socket.create_server(("127.0.0.1", 0)) as listens:
        original = paramiko.SSHClient.connect

        def here(self: paramiko.SSHClient, address: str, **options: object) -> None:
            original(self, address, **{**options, "sock": create_connection(listens.getsockname())})  # type: ignore[arg-type]

        monkeypatch.setattr(paramiko.SSHClient, "connect", here)

        def serve() -> None:
            transport = paramiko.Transport(listens.accept()[0])
            transport.add_server_key(host)
            transport.start_server(server=Strict(transport))

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(paramiko.SSHException) as failed:
            connect("192.0.2.1", "core", f"192.0.2.1 {host.get_name()} {host.get_base64()}\n")
        thread.join()

    told = MachineUnreachable.of("coreos-0", "machine", failed.value)
    assert told.refused == refused
    assert ("the agent offers too many keys" in str(told)) is (keys > 2)


def test_connection_does_not_wait_for_an_agent_that_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(ssh, "AGENT_LIMIT", 0.1)
    monkeypatch.setattr(paramiko.SSHClient, "connect", lambda self, address, **options: asked.append(options))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    with socket.socket(socket.AF_UNIX) as listens:
        listens.bind(str(tmp_path / "agent"))
        listens.listen()
        connect("192.0.2.1", "core", "")

    assert [options["allow_agent"] for options in asked] == [False]  # type: ignore[index]
