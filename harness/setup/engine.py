"""The Docker Engine of the operator's machine: found, or installed and started."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
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
        """Makes an engine answer: takes the one that does, else installs and starts Debian's or Ubuntu's docker.io.

        Raises Misconfigured when the person has to do that, or when the engine cannot serve (its containers' addresses
        are out of reach).
        """
        outcome = "cached"
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
        except PlatformWrong as hangs:
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
            if not self.answers():
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
