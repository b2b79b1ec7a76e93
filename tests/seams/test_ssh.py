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

import pytest

from harness.seams import ssh
from harness.seams.ssh import keys_in_agent


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
