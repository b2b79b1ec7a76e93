"""The operator's machine: its packages, its Docker Engine, and the images in it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from harness.errors import CommandFailed, EnvironmentFailed, Misconfigured, PlatformWrong
from harness.record.log import Recorder
from harness.seams.process import Runner
from harness.seams.wait import NotYet, Waiter
from harness.setup.cache import Cache
from harness.setup.limits import exclusive

PID_FILE = Path("/var/run/docker.pid")
SOCKET = Path("/var/run/docker.sock")
START_LIMIT = 60.0


class Engine:
    """One Docker Engine, spoken to through its command line client."""

    def __init__(self, process: Runner, recorder: Recorder, waiter: Waiter) -> None:
        self._process = process
        self._recorder = recorder
        self._waiter = waiter
        self.version = ""
        self.cgroup_version = ""

    # -- the engine itself ---------------------------------------------------------------------------------------

    def ensure(self) -> str:
        """Makes an engine answer: takes the one that does, else installs and starts Debian's or Ubuntu's docker.io.

        Raises Misconfigured when the person has to do that, or when the engine cannot serve (its containers' addresses
        are out of reach).
        """
        outcome = "cached"
        if not self._answers():
            self._may_start_one()
            # of runs that begin at once one starts it, and the others find it
            with exclusive("engine"):
                if not self._answers():
                    self._install_engine()
                    self._start()
                    outcome = "done"
        self._judge()
        return outcome

    def _install_engine(self) -> None:
        if not shutil.which("dockerd"):
            # apparmor only recommended there; a kernel that has it on runs no container without its parser
            self.install(["docker.io", "apparmor"])
        if not shutil.which("docker"):
            self.install(["docker-cli"])  # newer releases pack the client by itself

    def _answers(self) -> bool:
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
                self.install(["acl"])
            self._process.run(self.as_root(["setfacl", "--modify", f"user:{os.geteuid()}:rw", str(SOCKET)]))
        except (Misconfigured, CommandFailed) as refused:
            raise Misconfigured(may_not) from refused
        self._recorder.emit("note", text=f"this user may use the Docker Engine from now on (setfacl {SOCKET})")

    def require_answer(self) -> None:
        """Raises EnvironmentFailed when the engine, which answered before, does not any more."""
        try:
            answers = self._answers()
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
        self.as_root([])

    def as_root(self, argv: Sequence[str]) -> list[str]:
        """argv for root, through sudo where needed. Raises Misconfigured when this user cannot become root."""
        if os.geteuid() == 0:
            return list(argv)
        if shutil.which("sudo") and self._process.run(["sudo", "-n", "true"], ok=None).status == 0:
            return ["sudo", "-n", *argv]
        missing = shlex.join(argv) or "install and start a Docker Engine (apt-get install docker.io)"
        raise Misconfigured(
            f"root is needed to {missing}: do that, or run this as root or with sudo that asks no password"
        )

    def _start(self) -> None:
        if Path("/run/systemd/system").is_dir():
            self._process.run(self.as_root(["systemctl", "start", "docker"]), within=120)
        else:
            self._remove_stale_pid()
            # it outlives this run, as the service of a machine with systemd would
            script = "setsid dockerd </dev/null >>/var/log/dockerd.log 2>&1 &"
            self._process.run(self.as_root(["sh", "-c", script]))
            self._recorder.emit("note", text="started dockerd (its log: /var/log/dockerd.log)")

        def probe() -> bool:
            if not self._answers():
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
        self._process.run(self.as_root(["rm", "-f", str(PID_FILE)]))

    def _judge(self) -> None:
        info = json.loads(self._process.run(["docker", "info", "--format", "{{json .}}"]).stdout)
        self.cgroup_version = f"v{info.get('CgroupVersion', '?')}"
        options = " ".join(info.get("SecurityOptions") or [])
        if "rootless" in options or "Docker Desktop" in info.get("OperatingSystem", ""):
            raise Misconfigured(
                "this Docker Engine runs where its containers' addresses cannot be reached (rootless or Docker "
                "Desktop): point DOCKER_HOST at a Docker Engine of this Linux machine"
            )

    # -- system packages -----------------------------------------------------------------------------------------

    def install(self, packages: Iterable[str]) -> str:
        """Installs Debian or Ubuntu packages that are missing; "cached" when there are none."""
        wanted = list(packages)
        if not wanted:
            return "cached"
        if not shutil.which("apt-get"):
            raise Misconfigured(f"{' and '.join(wanted)} is missing, and there is no apt-get: install it")
        apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
        with exclusive("packages"):  # apt-get waits for dpkg's lock, not for that of the lists
            self._process.run(self.as_root([*apt, "update"]))
            self._process.run(self.as_root([*apt, "install", "--no-install-recommends", "-y", *wanted]))
        return "done"

    def unpack(self, package: str, folder: Path) -> None:
        """Unpacks a Debian package without installing it: no service of it is switched on."""
        download = ["apt-get", "-qq", "download", package]
        if self._process.run(download, cwd=folder, ok=None).status != 0:
            self._process.run(self.as_root(["apt-get", "-qq", "update"]))
            self._process.run(download, cwd=folder)
        archive = next(folder.glob("*.deb"))
        self._process.run(["dpkg-deb", "--extract", str(archive), str(folder)])
        archive.unlink()

    # -- images --------------------------------------------------------------------------------------------------

    def make_image(self, tag: str, cache: Cache, build: Callable[[], str]) -> str:
        """Makes the image `tag` unless the engine has it. `build` gives an image id, tagged only when it is whole."""
        if self._has_image(tag):
            return "cached"
        with cache.locked(tag.replace(":", "-")):
            if self._has_image(tag):
                return "cached"
            self._process.run(["docker", "tag", build(), tag])
        return "done"

    def _has_image(self, tag: str) -> bool:
        return self._process.run(["docker", "image", "inspect", "--format", "{{.Id}}", tag], ok=(0, 1)).status == 0

    def remove_images(self, label: str) -> bool:
        """Removes the images with this label (`name=value`), but for those that a run's containers run from. False when
        no engine answers."""
        if not self._answers():
            return False
        # by name: an image that others are built from cannot be removed by its id before them
        name = "{{.Repository}}:{{.Tag}}"
        listed = ["docker", "image", "ls", "--format", name, "--filter", f"label={label}"]
        for image in self._process.run(listed).stdout.split():
            using = ["docker", "ps", "--quiet", "--filter", f"ancestor={image}"]
            if not self._process.run(using).stdout.strip():
                self._process.run(["docker", "rmi", "--force", image])
        return True

    def import_root(self, builder: Sequence[str], labels: Mapping[str, str], entrypoint: Sequence[str] = ()) -> str:
        """An image from the tar archive that `builder OUT` writes, streamed; its id."""
        changes = [f"LABEL {name}={json.dumps(value)}" for name, value in labels.items()]
        changes += [f"ENTRYPOINT {json.dumps(list(entrypoint))}"] if entrypoint else []
        options = " ".join(f"--change {shlex.quote(change)}" for change in changes)
        # pipefail: the engine would take a truncated archive for a whole one
        script = f"set -o pipefail; {shlex.join(self.as_root(builder))} - | docker import {options} -"
        return self._process.run(["bash", "-c", script], within=1800).stdout.strip().splitlines()[-1]

    def build(self, context: Path, arguments: Mapping[str, str], labels: Mapping[str, str]) -> str:
        """An image from a Dockerfile whose base is local; its id. With the engine's own builder: no plugin needed."""
        values = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        values += [f"--label={name}={value}" for name, value in labels.items()]
        argv = ["docker", "build", "--quiet", "--force-rm", *values, str(context)]
        return self._process.run(argv, add_env={"DOCKER_BUILDKIT": "0"}, within=600).stdout.strip()

    def fill_registry(self, storage: Path, registry_image: str, images: Mapping[str, str]) -> None:
        """Fills a registry's storage folder: pushes each local image (value) under the name units use (key)."""
        name = f"platform-fill-registry-{os.getpid()}"
        # what it writes is this user's, who has to be able to remove it
        run = ["docker", "run", "--detach", "--name", name, "--user", f"{os.geteuid()}:{os.getegid()}"]
        run += ["--volume", f"{storage}:/var/lib/registry"]
        run += ["--publish", "127.0.0.1::5000", "--entrypoint", "/usr/bin/docker-registry", registry_image]
        try:
            self._process.run([*run, "serve", "/etc/platform/registry.yml"])
            address = self._process.run(["docker", "port", name, "5000/tcp"]).stdout.split()[0]
            for wanted, local in images.items():
                # the engine takes any registry on loopback, without TLS
                self._process.run(["docker", "tag", local, f"{address}/{wanted}"])
                try:
                    self._push(f"{address}/{wanted}")
                finally:
                    self._process.run(["docker", "rmi", "--no-prune", f"{address}/{wanted}"])
        finally:
            self._process.run(["docker", "rm", "--force", "--volumes", name])

    def _push(self, reference: str) -> None:
        def probe() -> bool:
            try:
                self._process.run(["docker", "push", "--quiet", reference])
            except CommandFailed as failed:
                if "refused" in failed.stderr or "EOF" in failed.stderr:
                    raise NotYet("the registry does not listen yet") from failed
                raise
            return True

        self._waiter.until(f"{reference} is in the registry", probe, bool, within=30)
