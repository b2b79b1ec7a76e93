"""`platform try-system SUITE`: both commands of the README in a bare Debian or Ubuntu, from nothing.

The system is made by mmdebstrap (git, make, Python, the CA certificates of this machine, and nothing else) and gets
mount, process and network namespaces of its own, so that its engine and its networks disturb no other; its way out is
slirp4netns. It gets a clean clone of this checkout's HEAD. What it prints at its end is a row of the README's table of
systems.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.commands.prepared import prepared
from harness.errors import EnvironmentFailed, ExitStatus, Misconfigured, PlatformWrong
from harness.runs.interrupts import Interrupts
from harness.setup.cache import FIRST_RUN_BYTES, Cache, cache_folder
from harness.setup.packages import NEEDS_OF_A_SUITE, Packages

# What a stranger has: nothing that the project could lean on. (mmdebstrap's smallest Ubuntu has no apt.)
PACKAGES = ("apt", "ca-certificates", "git", "make", "python3")
NEEDED = {"mmdebstrap": "mmdebstrap", "slirp4netns": "slirp4netns", "git": "git"}
# Of Ubuntu's archive mmdebstrap takes `main` alone, where everybody's system has universe too
UNIVERSE = 'sed -i "/ubuntu/s/ main$/ main universe/" "$1"/etc/apt/sources.list'
# slirp4netns answers for names there, and asks whom this machine asks
NAME_SERVER = "10.0.2.3"
CERTIFICATES, PIP_SETTINGS = Path("/etc/ssl/certs"), Path("/etc/pip.conf")
# How this machine's clients of package registries are set up, where it is not the default
PASSED_ON = re.compile(
    r"(?i:(https?|all|no)_proxy)|PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|CERT)|GO(PROXY|NOPROXY|SUMDB|NOSUMDB|PRIVATE)"
    r"|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|TERM"
)
STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMMANDS = (("make", "acceptance"), ("make", "test"))
# Of what came with the system: its name and its versions, one a line
VERSIONS = """
. /etc/os-release; echo "$PRETTY_NAME"
PATH=$(echo /root/.cache/platform/programs-of-tests-*):$PATH
python3 --version
docker version --format 'Docker {{.Server.Version}}'
haproxy -v | sed -n 's/HAProxy version \\([0-9.]*\\).*/HAProxy \\1/p'
systemd-analyze --version | sed -n '1s/ (.*//p'
etcd --version | sed -n 's/etcd Version: /etcd /p'
dig -v 2>&1 | sed -n 's/DiG \\([0-9.]*\\).*/BIND \\1/p'
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended, after how many seconds, and what it said at its end in a few words."""

    command: str
    status: int
    seconds: float
    said: str

    def __str__(self) -> str:
        failed = "" if self.status == 0 else f" (exit status {self.status})"
        return f"`{self.command}` {self.said} in {self.seconds:.0f} s{failed}"


def try_system(root: Path, suite: str) -> ExitStatus:
    """Tries both commands in a system of this suite (`bookworm`, `trixie`, `noble`), and prints the row of the table.

    VERIFIED when both ended with 0, else PLATFORM_WRONG. Raises Misconfigured where namespaces cannot be had, and
    EnvironmentFailed when the system cannot be made.
    """
    if not re.fullmatch(r"[a-z]+", suite):
        raise Misconfigured(f"{suite!r} is no suite of Debian or Ubuntu: give its name, such as trixie")
    _require_namespaces()
    cache = Cache(cache_folder())
    cache.require_space(FIRST_RUN_BYTES)
    folder = cache.folder / f"system-{secrets.token_hex(6)}"
    with Interrupts() as interrupts:
        try:
            with interrupts.allowed(), ExitStack() as stack:
                stack.enter_context(cache.locked("system", fcntl.LOCK_SH))  # `clean` leaves it alone
                _make(root, suite, folder)
                system = stack.enter_context(_System.entered(folder))
                outcomes = [system.tried(command) for command in COMMANDS]
                name, *versions = system.says(VERSIONS).splitlines()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"\n| {name}, nothing but git, make and Python ({', '.join(versions)}) | {'; '.join(map(str, outcomes))} |")
    good = all(outcome.status == 0 for outcome in outcomes)
    return ExitStatus.VERIFIED if good else ExitStatus.PLATFORM_WRONG


def _require_namespaces() -> None:
    if os.geteuid() != 0:
        raise Misconfigured("a system of its own needs root: run this as root")
    if not Path("/dev/net/tun").exists():
        raise Misconfigured("a system of its own needs /dev/net/tun for its network: load the kernel's module tun")
    tried = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        raise Misconfigured(f"a system of its own needs namespaces, and they cannot be had: {tried.stderr.strip()}")


def _make(root: Path, suite: str, folder: Path) -> None:
    """A bare system in this folder, with a clean clone of HEAD."""
    with prepared(root, ()) as toolchain:
        _install_missing(toolchain.packages)
        run, include = toolchain.process.run, f"--include={','.join(PACKAGES)}"
        print(f"platform: making a bare {suite}", file=sys.stderr)
        try:
            options = ["--variant=minbase", f"--setup-hook={UNIVERSE}", include]
            run(["mmdebstrap", *options, suite, str(folder)], within=900)
            run(["git", "clone", "--quiet", str(root), str(folder / "root/platform")])
        except PlatformWrong as failed:  # no platform was tried: the package source, the disk or the suite's name
            raise EnvironmentFailed(f"a bare {suite} cannot be made ({NEEDS_OF_A_SUITE}): {failed}") from failed
    if CERTIFICATES.is_dir():
        shutil.rmtree(folder / "etc/ssl/certs")  # its links would be followed out of it
        shutil.copytree(CERTIFICATES, folder / "etc/ssl/certs", ignore_dangling_symlinks=True)
    if PIP_SETTINGS.is_file():
        shutil.copy2(PIP_SETTINGS, folder / "etc")
    (folder / "etc/resolv.conf").unlink(missing_ok=True)
    (folder / "etc/resolv.conf").write_text(f"nameserver {NAME_SERVER}\n")
    (folder / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")


def _install_missing(packages: Packages) -> None:
    packages.install([package for program, package in NEEDED.items() if not shutil.which(program)])


class _System:
    """A system that runs: a shell in it is its first process, and ends with it."""

    def __init__(self, shell: subprocess.Popen[str]) -> None:
        self._shell = shell

    @classmethod
    @contextmanager
    def entered(cls, folder: Path) -> Iterator[_System]:
        environment = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
        environment |= {"HOME": "/root", "LANG": "C.UTF-8", "PATH": STANDARD_PATH}
        enter = [str(Path(__file__).with_suffix(".sh")), str(folder), "sh"]
        namespaces = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"]
        shell = subprocess.Popen(
            [*namespaces, *enter],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        network: subprocess.Popen[bytes] | None = None
        try:
            assert shell.stdout is not None
            if shell.stdout.readline() != "unshared\n":
                raise EnvironmentFailed("the system could not be entered")
            network = subprocess.Popen(
                ["slirp4netns", "--configure", "--mtu=1400", "--disable-host-loopback", str(shell.pid), "tap0"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            yield cls(shell)
        finally:
            for process in (shell, network):
                if process is not None:
                    process.kill()
                    process.wait()
            for pipe in (shell.stdin, shell.stdout):
                if pipe is not None:
                    pipe.close()

    def tried(self, command: Sequence[str]) -> Outcome:
        """Runs a command in the clone; what it prints is shown as it comes."""
        line = " ".join(command)
        print(f"platform: {line}", file=sys.stderr)
        began = time.monotonic()
        said: list[str] = []

        def show(text: str) -> None:
            said.append(text)
            print(text, flush=True)

        status = self._run(f"cd /root/platform && {line}", show)
        return Outcome(line, status, time.monotonic() - began, _summed_up(said))

    def says(self, script: str) -> str:
        """What a script prints."""
        said: list[str] = []
        self._run(script, said.append)
        return "\n".join(said)

    def _run(self, script: str, each: Callable[[str], None]) -> int:
        assert self._shell.stdin is not None and self._shell.stdout is not None
        mark = secrets.token_hex(8)
        # in a shell of its own, without the input that the next command comes by
        self._shell.stdin.write(f"(\n{script}\n) </dev/null 2>&1; echo {mark} $?\n")
        self._shell.stdin.flush()
        for text in self._shell.stdout:
            if text.startswith(mark):
                return int(text.split()[1])
            each(text.rstrip("\n"))
        raise EnvironmentFailed("the system ended in the middle of a command")


def _summed_up(said: Sequence[str]) -> str:
    """The last line that counts: scenarios of `make acceptance`, tests of `make test`."""
    for line in reversed(said):
        if counted := re.search(r"scenarios +(\d.*)|=+ (\d.*) in [\d.]+s.*=+|^(\d+ passed.*) in ", line):
            return next(group for group in counted.groups() if group)
    return said[-1] if said else "said nothing"
