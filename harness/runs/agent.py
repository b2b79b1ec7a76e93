"""SSH keys made for a run, and the ssh-agent that holds the operator's."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness.errors import EnvironmentFailed, Misconfigured, PlatformWrong
from harness.runs.run import Run
from harness.seams.surroundings import cleaned

# Seconds for an ssh-agent to listen; a machine that builds something meanwhile has taken more than five
LISTEN_LIMIT = 20.0


@dataclass(frozen=True)
class Keys:
    """An OpenSSH key pair (ed25519: fleetctl's SSH library signs RSA only in a way that today's sshd refuses)."""

    private: str
    public: str

    @classmethod
    def generate(cls, comment: str) -> Keys:
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        ).decode()
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return cls(private, f"{public.decode()} {comment}\n")


@dataclass
class Agent:
    """An ssh-agent of a run, in the foreground, so that it cannot outlive the run unnoticed. That of a kept cluster
    outlives the process that started it: another one, which knows it by its number, ends it."""

    run_id: str
    pid: int
    socket: Path
    _process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, run: Run, private_key: str, environment: Mapping[str, str]) -> Agent:
        """Starts one that holds this key. Raises Misconfigured where there is no ssh-agent, EnvironmentFailed."""
        # not in the run folder: the path of a socket has 108 bytes at most
        folder = Path(tempfile.mkdtemp(prefix=f"platform-{run.run_id}-"))
        listens = folder / "agent"
        try:
            process = subprocess.Popen(
                ["ssh-agent", "-D", "-a", str(listens)],
                env={**environment, "PLATFORM_RUN": run.run_id},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except FileNotFoundError as missing:
            folder.rmdir()
            raise Misconfigured("ssh-agent is not installed: install openssh-client") from missing
        agent = cls(run.run_id, process.pid, listens, process)
        try:
            run.waiter.until("the ssh-agent listens", lambda: _listens(listens), bool, within=LISTEN_LIMIT)
            add = ["ssh-add", "-q", "-"]
            run.process.run(add, env={**environment, "SSH_AUTH_SOCK": str(listens)}, stdin=private_key, within=10)
        except BaseException as failed:
            agent.end()
            if isinstance(failed, PlatformWrong):
                raise EnvironmentFailed(f"the ssh-agent of the run: {failed}") from failed
            raise
        return agent

    @property
    def variables(self) -> dict[str, str]:
        """What tells programs of it."""
        return {"SSH_AUTH_SOCK": str(self.socket), "SSH_AGENT_PID": str(self.pid)}

    @classmethod
    def of(cls, run_id: str, environment: Mapping[str, str]) -> Agent | None:
        """The agent that these variables tell of."""
        pid, path = environment.get("SSH_AGENT_PID", ""), environment.get("SSH_AUTH_SOCK", "")
        return cls(run_id, int(pid), Path(path)) if pid.isdigit() and path else None

    def end(self) -> None:
        """Ends it and forgets its key; the number may be another process's by now, which is left alone."""
        if not self.socket.parent.name.startswith(f"platform-{self.run_id}-"):
            return  # a person's
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        elif self._is_this(self.pid):
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
        shutil.rmtree(self.socket.parent, ignore_errors=True)

    def listens(self) -> bool:
        return _listens(self.socket)

    def _is_this(self, pid: int) -> bool:
        """By its command line, which names the socket: an ssh-agent lets nobody but root read its environment."""
        try:
            return str(self.socket).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False


@dataclass
class LentAgent:
    """The person's own ssh-agent, which gets the run's key too: what it holds lets into the target's hosts, and cannot
    be had from it. The key stays in it as long as the cluster stands."""

    run: Run
    key: Path
    socket: Path

    @classmethod
    def lend(cls, run: Run, key: Path, socket: str) -> LentAgent:
        """Raises EnvironmentFailed where it does not take the key."""
        lent = cls(run, key, Path(socket))
        try:
            run.process.run(["ssh-add", "-q", str(key)], env=cleaned(os.environ) | lent.variables, within=10)
        except PlatformWrong as failed:
            raise EnvironmentFailed(f"your ssh-agent does not take the run's key: {failed}") from failed
        return lent

    @property
    def variables(self) -> dict[str, str]:
        return {"SSH_AUTH_SOCK": str(self.socket)}

    def end(self) -> None:
        """It is the person's."""

    def take_back(self) -> None:
        """Takes the run's key out of it, where it is there yet."""
        self.run.process.run(
            ["ssh-add", "-q", "-d", str(self.key)], env=cleaned(os.environ) | self.variables, within=10, ok=None
        )


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
