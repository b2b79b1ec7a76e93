"""The Docker Engine of the operator's machine: found, or installed and started."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import urllib.parse
from pathlib import Path

from harness.errors import CommandFailed, EnvironmentFailed, Misconfigured, PlatformWrong
from harness.record.log import Recorder
from harness.seams.process import Runner
from harness.seams.wait import NotYet, Waiter
from harness.setup.limits import exclusive
from harness.setup.packages import Packages

PID_FILE = Path("/var/run/docker.pid")
SOCKET = Path("/var/run/docker.sock")
START_LIMIT = 60.0
# What a client says where no engine listens: only there one may be started
NOBODY_LISTENS = re.compile("(?i)cannot connect|failed to connect|daemon running|connection refused|no such file")


class Engine:
    """One Docker Engine, spoken to through its command line client."""

    def __init__(self, process: Runner, recorder: Recorder, waiter: Waiter, packages: Packages) -> None:
        self._process = process
        self._recorder = recorder
        self._waiter = waiter
        self._packages = packages
        self.version = ""
        self.cgroup_version = ""

    def ensure(self) -> str:
        """Makes an engine answer: takes the one that the client speaks to, else installs and starts Debian's or
        Ubuntu's docker.io.

        Raises Misconfigured when the person has to do that, or when the engine cannot serve (its containers' addresses
        are out of reach).
        """
        outcome = "cached"
        self._settle_on_one()
        if not self.answers():
            self._may_start_one()
            # of runs that begin at once one starts it, and the others find it
            with exclusive("engine"):
                if not self.answers():
                    self._install_engine()
                    self._start()
                    outcome = "done"
        self._judge()
        return outcome

    def _settle_on_one(self) -> None:
        """The engine that the client speaks to is everybody's: Terraform's provider knows DOCKER_HOST, and no context.
        Raises Misconfigured for one on another machine."""
        if shutil.which("docker") and not os.environ.get("DOCKER_HOST") and (context := _context()):
            ask = ["docker", "context", "inspect", context, "--format", "{{.Endpoints.docker.Host}}"]
            answer = self._process.run(ask, ok=None, within=20)
            if answer.status != 0:
                raise Misconfigured(f"the context {context} of Docker cannot be used: {_last(answer.stderr)}")
            os.environ["DOCKER_HOST"] = answer.stdout.strip()
            self._recorder.emit("note", text=f"the engine is that of Docker's context {context}")
        host = os.environ.get("DOCKER_HOST", "")
        if host and not _is_here(host):
            raise Misconfigured(
                f"DOCKER_HOST is {host}, and no engine answers there that is on this machine (machines are reached by "
                "route, and the registry's storage is mounted): unset it, or choose another context"
            )

    def _install_engine(self) -> None:
        if not shutil.which("dockerd"):
            # apparmor only recommended there; a kernel that has it on runs no container without its parser
            self._packages.install(["docker.io", "apparmor"])
        if not shutil.which("docker"):
            self._packages.install(["docker-cli"])  # newer releases pack the client by itself

    def answers(self) -> bool:
        """Whether the engine answers; lets in a user who may not use it. Raises Misconfigured where that fails."""
        if not shutil.which("docker"):
            return False
        ask = ["docker", "version", "--format", "{{.Server.Version}}"]
        answer = self._process.run(ask, ok=None, within=20)
        if "permission denied" in answer.stderr:
            self._enter()
            answer = self._process.run(ask, ok=None, within=20)
        self.version = answer.stdout.strip()
        reason = _last(answer.stderr)
        if answer.status != 0 and reason and not NOBODY_LISTENS.search(answer.stderr):
            raise Misconfigured(f"the Docker Engine cannot be used: {reason}")
        return answer.status == 0

    def _enter(self) -> None:
        """Lets a user who has sudo use the engine, by an entry in the socket's access list: membership in group docker
        would begin with the next login only. Raises Misconfigured for a user without sudo."""
        may_not = "this user may not use the Docker Engine: add it to group docker and log in again, or run as root"
        if os.environ.get("DOCKER_HOST") or os.geteuid() == 0:
            raise Misconfigured(may_not)
        try:
            if not shutil.which("setfacl"):
                self._packages.install(["acl"])
            self._process.run(self._packages.as_root(["setfacl", "--modify", f"user:{os.geteuid()}:rw", str(SOCKET)]))
        except (Misconfigured, CommandFailed) as refused:
            raise Misconfigured(may_not) from refused
        self._recorder.emit("note", text=f"this user may use the Docker Engine from now on (setfacl {SOCKET})")

    def require_answer(self) -> None:
        """Raises EnvironmentFailed when the engine, which answered before, does not any more."""
        try:
            answers = self.answers()
        except (PlatformWrong, Misconfigured) as hangs:
            raise EnvironmentFailed(f"the Docker Engine does not answer any more: {hangs}") from hangs
        if not answers:
            raise EnvironmentFailed("the Docker Engine does not answer any more")

    def _may_start_one(self) -> None:
        if os.environ.get("DOCKER_HOST"):
            raise Misconfigured(
                f"DOCKER_HOST is {os.environ['DOCKER_HOST']}, and no engine answers there: start it, or unset it"
            )
        release: dict[str, str] = {}
        with contextlib.suppress(OSError):  # a system that does not say what it is
            release = platform.freedesktop_os_release()
        names = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
        if not names & {"debian", "ubuntu"}:
            raise Misconfigured(
                f"no Docker Engine answers, and on {release.get('PRETTY_NAME', 'this system')} it is not installed "
                "from here: install and start one"
            )
        self._packages.require_root("install and start a Docker Engine (apt-get install docker.io)")

    def _start(self) -> None:
        if Path("/run/systemd/system").is_dir():
            self._process.run(self._packages.as_root(["systemctl", "start", "docker"]), within=120)
        else:
            self._remove_stale_pid()
            # it outlives this run, as the service of a machine with systemd would
            script = "setsid dockerd </dev/null >>/var/log/dockerd.log 2>&1 &"
            self._process.run(self._packages.as_root(["sh", "-c", script]))
            self._recorder.emit("note", text="started dockerd (its log: /var/log/dockerd.log)")

        def probe() -> bool:
            try:
                answers = self.answers()
            except Misconfigured as refused:  # it listens, and is not ready
                raise NotYet(str(refused)) from refused
            if not answers:
                raise NotYet("no answer")
            return True

        self._waiter.until(
            "the Docker Engine answers", probe, bool, within=START_LIMIT, paste="tail /var/log/dockerd.log"
        )

    def _remove_stale_pid(self) -> None:
        """dockerd refuses to start while a process, any process, has the number in its pid file."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            process = Path("/proc") / str(int(PID_FILE.read_text()))
            if process.exists() and (process / "comm").read_text().strip() == "dockerd":
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    return
        self._process.run(self._packages.as_root(["rm", "-f", str(PID_FILE)]))

    def _judge(self) -> None:
        info = json.loads(self._process.run(["docker", "info", "--format", "{{json .}}"]).stdout)
        self.cgroup_version = f"v{info.get('CgroupVersion', '?')}"
        options = " ".join(info.get("SecurityOptions") or [])
        if "rootless" in options or "Docker Desktop" in info.get("OperatingSystem", ""):
            raise Misconfigured(
                "this Docker Engine runs where its containers' addresses cannot be reached (rootless or Docker "
                "Desktop): point DOCKER_HOST at a Docker Engine of this Linux machine"
            )


def _context() -> str:
    """The context that the person chose for Docker's client; nothing where it is the default one."""
    chosen = os.environ.get("DOCKER_CONTEXT", "")
    if not chosen:
        folder = os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker"
        with contextlib.suppress(OSError, ValueError, AttributeError):  # none, or one that the client tells of
            chosen = json.loads((Path(folder) / "config.json").read_text()).get("currentContext", "")
    return "" if chosen == "default" else chosen


def _is_here(host: str) -> bool:
    parts = urllib.parse.urlsplit(host if "://" in host else f"tcp://{host}")
    name = parts.hostname or ""
    return parts.scheme == "unix" or (
        parts.scheme == "tcp" and (name in ("localhost", "::1") or name.startswith("127."))
    )


def _last(said: str) -> str:
    return (said.strip().splitlines() or [""])[-1]
