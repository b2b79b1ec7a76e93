"""`platform hosts [N]`: stock hosts for whoever has none, as containers of this machine's engine.

They are what target `hosts` is given: Debian or Ubuntu with systemd and sshd, a user with sudo whom the operator's
key lets in, host keys of their own, and nothing of ours. They stand until they are removed, whichever clusters come and
go. What the target has to know of them is written where it looks (infra/hosts).
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import files
from harness.commands.prepared import prepared
from harness.drivers.terraform import target_data
from harness.errors import CommandFailed, EnvironmentFailed, Misconfigured, PlatformWrong
from harness.runs.agent import Keys
from harness.runs.ground import SUBNETS_TRIED, free_subnet
from harness.seams.process import Runner
from harness.seams.wait import NotYet, Waiter
from harness.setup.cache import key_of
from harness.setup.limits import room_for
from harness.setup.packages import NEEDS_OF_A_SUITE
from harness.setup.toolchain import CACHE_LABEL, Toolchain

HOSTS_AT_MOST = 100
USER = "debian"
# Of a checkout's hosts: container and network carry it, with the checkout's key
LABEL = "platform.hosts"
BOOT_LIMIT = 60.0
# As for a machine-container (infra/local/machines.tf): what systemd and Docker need, no more
CAPABILITIES = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "KILL",
    "LEASE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_CHROOT",
    "SYS_PTRACE",
]
UNCONFINED = ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined")
# The first line of the variables that are written here
WRITTEN = "# written by `bin/platform hosts`"
LET_IN = f"install -d -m 700 -o {USER} ~{USER}/.ssh && install -m 600 -o {USER} /dev/stdin ~{USER}/.ssh/authorized_keys"


def make_hosts(root: Path, number: int, suite: str) -> str:
    """Makes the hosts of this checkout that are missing, starts those that are off, removes those that are too many or
    of another system; what to do with them.

    Raises Misconfigured for a number or system that cannot be, EnvironmentFailed when they cannot be made.
    """
    if not 1 <= number <= HOSTS_AT_MOST:
        raise Misconfigured(f"{number} hosts: give a number from 1 to {HOSTS_AT_MOST}")
    if not re.fullmatch(r"[a-z]+", suite):
        raise Misconfigured(f"{suite!r} is no suite of Debian or Ubuntu: give its name, such as trixie")
    with prepared(root, ("docker engine",)) as toolchain, room_for(number, _takes(root)):
        try:
            hosts = Hosts(root, toolchain.process)
            try:
                image = _image(root, toolchain, suite)
            except PlatformWrong as failed:
                raise EnvironmentFailed(f"no image of {suite} can be made ({NEEDS_OF_A_SUITE}): {failed}") from failed
            hosts.make(number, image)
            hosts.wait(Waiter(toolchain.recorder))
            hosts.write_down()
        except PlatformWrong as failed:  # no platform is there yet
            raise EnvironmentFailed(f"the hosts cannot be made: {failed}") from failed
    return "\n".join(
        [
            *(f"{USER}@{host.address}  {host.name}" for host in hosts.standing()),
            f"what target `hosts` has to know is in {hosts.variables}; to let it switch them off and on:",
            f"export HOST_POWER={root / 'infra/stock-hosts/power'}",
        ]
    )


def remove_hosts(root: Path) -> str:
    """Removes the hosts of this checkout, and what was written down of them."""
    with prepared(root, ("docker engine",)) as toolchain:
        Hosts(root, toolchain.process).remove()
    return "no stock host is left"


def _takes(root: Path) -> dict[str, int]:
    """A host becomes a machine like one of `local`."""
    return dict(target_data(root / "infra/local")["takes"])


def _image(root: Path, toolchain: Toolchain, suite: str) -> str:
    script = root / "infra/stock-hosts/build-base"
    labels = {CACHE_LABEL: str(toolchain.cache.folder)}
    tag = f"platform-host:{key_of(script, suite, *labels.values())}"
    toolchain.images.make(
        tag, toolchain.cache, lambda: toolchain.images.import_root([str(script), suite], {**labels, LABEL: suite})
    )
    return tag


@dataclass(frozen=True)
class Host:
    """One that stands: its container, its address, the id of its image."""

    name: str
    address: str
    image: str


class Hosts:
    """The stock hosts of one checkout. Raises Misconfigured where its operator has written down others."""

    def __init__(self, root: Path, process: Runner) -> None:
        self._root = root
        self._process = process
        self._id = key_of(str(root))[:6]
        self._network = f"platform-hosts-{self._id}"
        self._folder = root / "infra/hosts"
        self.variables = self._folder / "hosts.auto.tfvars"
        self.key = self._folder / "hosts.key"
        if self.variables.exists() and not self.variables.read_text().startswith(WRITTEN):
            raise Misconfigured(
                f"{self.variables} names hosts of yours: move it away, and known_hosts beside it, first"
            )

    def standing(self) -> list[Host]:
        """In the order of their addresses."""
        listed = self._run("docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL}={self._id}").split()
        found = json.loads(self._run("docker", "inspect", *listed)) if listed else []
        hosts = [
            Host(
                container["Name"].strip("/"),
                container["NetworkSettings"]["Networks"][self._network]["IPAMConfig"]["IPv4Address"],
                container["Image"],
            )
            for container in found
        ]
        return sorted(hosts, key=lambda host: tuple(map(int, host.address.split("."))))

    def make(self, number: int, image: str) -> None:
        """So many of this image; those that are there stay."""
        image_id = self._run("docker", "image", "inspect", "--format", "{{.Id}}", image)
        wanted = [f"{self._network}-{index}" for index in range(number)]
        for host in self.standing():
            if host.name not in wanted or host.image != image_id:
                self._run("docker", "rm", "--force", "--volumes", host.name)
        self._make_network()
        there = {host.name for host in self.standing()}
        subnet = self._run(
            "docker", "network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", self._network
        )
        for index, name in enumerate(wanted):
            if name not in there:
                self._create(name, f"{subnet.rpartition('.')[0]}.{10 + index}", image)
        self._run("docker", "start", *wanted)

    def _make_network(self) -> None:
        label = f"label={LABEL}={self._id}"
        if self._run("docker", "network", "ls", "--quiet", "--filter", label):
            return
        for attempt in range(1, SUBNETS_TRIED + 1):
            subnet = free_subnet(Path("/proc/net/route").read_text(), random.Random())
            words = ["--subnet", str(subnet), "--label", label.partition("=")[2]]
            try:
                self._run("docker", "network", "create", *words, self._network)
                return
            except CommandFailed as failed:
                if "overlaps" not in failed.stderr or attempt == SUBNETS_TRIED:
                    raise

    def _create(self, name: str, address: str, image: str) -> None:
        """/var/lib is a volume: an engine inside cannot lay an overlay on that of the engine outside."""
        options = ["--hostname", f"host-{name.rpartition('-')[2]}", "--label", f"{LABEL}={self._id}"]
        options += ["--network", self._network, "--ip", address, "--cgroupns", "private", "--stop-signal", "SIGRTMIN+3"]
        options += ["--tmpfs", "/run:rw,exec,mode=755,size=256m", "--volume", "/var/lib"]
        options += ["--cap-drop", "ALL", *(f"--cap-add={capability}" for capability in CAPABILITIES)]
        options += [f"--security-opt={option}" for option in UNCONFINED]
        boot = (self._root / "infra/stock-hosts/boot").read_text()
        self._run("docker", "create", "--name", name, *options, "--entrypoint", "/bin/sh", image, "-c", boot)

    def wait(self, waiter: Waiter) -> None:
        """Until each has booted, and lets the operator in. Raises WaitExpired."""
        if not self.key.exists():
            self.key.parent.mkdir(exist_ok=True)
            files.put(self.key, Keys.generate("operator of stock hosts").private, mode=0o600)
        public = self._run("ssh-keygen", "-y", "-f", str(self.key))
        for host in self.standing():
            self._process.run(["docker", "exec", "-i", host.name, "sh", "-c", LET_IN], stdin=f"{public}\n")
            waiter.until(f"{host.name} has booted", partial(self._is_up, host), bool, within=BOOT_LIMIT)

    def _is_up(self, host: Host) -> bool:
        ask = ["docker", "exec", host.name, "systemctl", "is-system-running"]
        state = self._process.run(ask, ok=None).stdout.strip()
        if state != "running":
            raise NotYet(state or "it does not say")
        return True

    def write_down(self) -> None:
        """The variables of target `hosts`, and the host keys, which the engine knows without asking the network."""
        hosts = self.standing()
        public = ["sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub"]
        lines = [
            f"{host.address} {' '.join(line.split()[:2])}"
            for host in hosts
            for line in self._run("docker", "exec", host.name, *public).splitlines()
        ]
        files.write(self._folder / "known_hosts", "".join(f"{line}\n" for line in lines))
        addresses = "".join(f'  "{host.address}",\n' for host in hosts)
        files.write(
            self.variables,
            f"{WRITTEN}\nhosts = [\n{addresses}]\n"
            f'user        = "{USER}"\nknown_hosts = "known_hosts"\nkey_file    = "{self.key}"\n',
        )

    def remove(self) -> None:
        names = [host.name for host in self.standing()]
        if names:
            self._run("docker", "rm", "--force", "--volumes", *names)
        if self._run("docker", "network", "ls", "--quiet", "--filter", f"label={LABEL}={self._id}"):
            self._run("docker", "network", "rm", self._network)
        for file in (self.variables, self.key, self._folder / "known_hosts"):
            file.unlink(missing_ok=True)

    def _run(self, *argv: str) -> str:
        return self._process.run(argv).stdout.strip()
