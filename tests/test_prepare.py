"""The script that turns a host into a machine: what it refuses, and that it changes nothing then; what it puts there,
and that it gives a host back as it was, wherever it broke off. Engines, filters and packages are tried by trying them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_helpers_of_machines import run

ROOT = Path(__file__).parent.parent
PREPARE = ROOT / "infra/hosts/prepare"
BOOKWORM = 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
SSHD = 'LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=52,fd=3))\n'
LIKE_DOCKERS = """table ip filter {
\tchain DOCKER {
\t\toifname "docker0" drop
\t}
\tchain FORWARD {
\t\ttype filter hook forward priority filter; policy drop;
\t\tjump DOCKER
\t}
\tchain INPUT {
\t\ttype filter hook input priority filter; policy accept;
\t}
}
"""
ANYWHERE = [
    "sh",
    "cat",
    "sed",
    "awk",
    "grep",
    "ls",
    "timeout",
    "uname",
    "mkdir",
    "mv",
    "cp",
    "rm",
    "rmdir",
    "cut",
    "tar",
    "find",
    "touch",
    "tail",
    "head",
    "tr",
    "sort",
    "xargs",
    "flock",
    "ln",
    "seq",
    "sleep",
    "chmod",
    "env",
]
CHAINS = ["ip filter DOCKER -", "ip filter FORWARD drop", "ip filter INPUT accept"]
INPUT_DROPS = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n}\n"
INPUT_HAS_A_RULE = """table inet filter {
\tchain input {
\t\ttype filter hook input priority filter; policy accept;
\t\ttcp dport 25 drop
\t}
}
"""


class StockHost:
    """A host that is acted: its files lie in a folder, and programs answer what they are told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "bin"
        self.programs.mkdir()
        # the programs that a host has or lacks are those that are acted, and what any shell has
        for name in ANYWHERE:
            (self.programs / name).symlink_to(f"/usr/bin/{name}")
        for place in ("etc/ssh", "var/lib", "run/systemd/system", "proc/net"):
            (folder / place).mkdir(parents=True)
        self.write("etc/os-release", BOOKWORM)
        self.write("etc/machine-id", f"{'12345678' * 4}\n")
        self.write("etc/ssh/ssh_host_ed25519_key", "")
        self.write("proc/meminfo", "MemAvailable: 2000000 kB\n")
        for name, answer in {
            "dpkg": "",
            "df": "h\nx 1 1 9000000\n",
            "ss": SSHD,
            "hostname": "host-0",
            "id": "0",
        }.items():
            self.says(name, answer)
        self.says("getent", "", 2)
        self.says("systemctl", "", 1)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)

    def says(self, name: str, answer: str, status: int = 0) -> None:
        """A program answers this, whatever it is asked."""
        (self.folder / f"{name}.answer").write_text(answer)
        (self.programs / name).write_text(f"#!/bin/sh\ncat {self.folder}/{name}.answer\nexit {status}\n")
        (self.programs / name).chmod(0o755)

    def __call__(self, *words: str, run_id: str = "run") -> subprocess.CompletedProcess[str]:
        text = re.sub(r"(?<![\w.])/(?=(etc|var|run|proc|usr/local|home)/)", f"{self.folder}/", PREPARE.read_text())
        environment = {"PATH": str(self.programs), "RUN_ID": run_id}
        return subprocess.run(
            ["/bin/sh", "-s", *words], input=text, env=environment, capture_output=True, text=True, timeout=60,
            start_new_session=True,
        )  # fmt: skip


@pytest.fixture
def host(tmp_path: Path) -> StockHost:
    return StockHost(tmp_path)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_stock_host_is_taken(host: StockHost) -> None:
    done = host("check")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def with_text(name: str, text: str) -> Callable[[StockHost], None]:
    return lambda host: host.write(name, text)


def with_answer(name: str, answer: str, status: int = 0) -> Callable[[StockHost], None]:
    return lambda host: host.says(name, answer, status)


def without(name: str) -> Callable[[StockHost], None]:
    return lambda host: (host.folder / name).unlink()


def listens(port: int, who: str = "other") -> Callable[[StockHost], None]:
    return with_answer("ss", f'{SSHD}LISTEN 0 128 *:{port} *:* users:(("{who}",pid=7,fd=3))\n')


def in_order(*changes: Callable[[StockHost], None]) -> Callable[[StockHost], None]:
    return lambda host: [change(host) for change in changes] and None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_answer("id", "1000"), "not root"),
        (with_text("etc/os-release", BOOKWORM.replace("12", "11")), "Linux 11 (bookworm) is not Debian 12, Debian 13"),
        (lambda host: (host.folder / "run/systemd/system").rmdir(), "systemd does not run it"),
        (without("bin/ss"), "install iproute2"),
        (with_answer("dpkg", "The following packages are only half configured\n"), "in disorder (dpkg --audit)"),
        (with_text("etc/machine-id", ""), "no machine-id"),
        (with_text("etc/machine-id", "uninitialized\n"), "no machine-id"),
        (without("etc/ssh/ssh_host_ed25519_key"), "no ed25519 or ecdsa key"),
        (with_answer("df", "h\nx 1 1 1024000\n"), "2048 are needed"),
        (with_text("proc/meminfo", "MemAvailable: 204800 kB\n"), "200 MiB of memory are free, 400 are needed"),
        (with_answer("getent", "core:x:1000"), "a user core, or a home of one, already"),
        (with_text("home/core/notes", ""), "a user core, or a home of one, already"),
        (with_answer("etcd", ""), "an etcd of its own"),
        (with_text("var/lib/etcd/default/member", ""), "an etcd of its own"),
        (with_answer("docker", "abc\n"), "a Docker with containers"),
        (with_answer("docker", "", 1), "a Docker that does not answer"),
        (with_answer("systemctl", ""), "a unit fleet.service of its own"),
        (with_answer("nft", INPUT_DROPS), "a filter of its own (nft list ruleset)"),
        (with_answer("nft", INPUT_HAS_A_RULE), "a filter of its own (nft list ruleset)"),
        (
            in_order(
                with_text("proc/net/ip_tables_names", "filter\n"),
                with_answer("iptables-legacy-save", ":INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j DROP\n"),
            ),
            "a filter of its own (iptables-legacy-save)",
        ),
        (listens(80, "nginx"), "nginx listens on port 80"),
        (listens(2379), "other listens on port 2379"),
        (with_answer("ss", "LISTEN 0 5 [::]:4001 [::]:*\n"), "something listens on port 4001"),
        (listens(22, "dropbear"), "dropbear listens on port 22, and is not sshd"),
    ],
)
def test_a_host_with_something_of_its_own_is_refused_in_one_line_and_unchanged(
    host: StockHost, change: Callable[[StockHost], None], said: str
) -> None:
    change(host)
    before = files(host.folder)
    done = host("check")

    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert done.stderr.startswith("host-0: ") and done.stderr.count("\n") == 1
    assert files(host.folder) == before


@pytest.mark.parametrize(
    "change",
    [
        with_answer("docker", ""),
        with_answer("nft", LIKE_DOCKERS),
        listens(22, "systemd"),
        listens(8080),
        with_text("etc/os-release", 'ID=ubuntu\nVERSION_ID="24.04"\n'),
        with_text("etc/os-release", 'ID=debian\nVERSION_ID="13"\n'),
    ],
)
def test_what_breaks_nothing_is_passed_over(host: StockHost, change: Callable[[StockHost], None]) -> None:
    change(host)
    done = host("check")

    assert done.returncode == 0, done.stderr


def test_a_machine_of_the_same_run_is_not_looked_at_again(host: StockHost) -> None:
    host.write("var/lib/platform/run", "run\n")
    host.says("getent", "core:x:1000")

    assert host("check").returncode == 0


def test_a_machine_of_another_run_is_refused(host: StockHost) -> None:
    host.write("var/lib/platform/run", "other\n")
    done = host("check")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"host-0: it is a machine of run other: destroy that one, or run "
        f"{host.folder}/var/lib/platform-bundle/prepare give-back there\n"
    )


@pytest.mark.parametrize(("tables", "chains"), [(LIKE_DOCKERS, CHAINS), ("", [])])
def test_chains_of_the_host_are_known_by_their_tables(host: StockHost, tables: str, chains: list[str]) -> None:
    host.says("nft", tables)
    text = PREPARE.read_text()
    function = text[text.index("chains() {") : text.index("\n}\n", text.index("chains() {")) + 3]
    done = run(["sh", "-c", f"{function}chains"], PATH=f"{host.programs}:{os.environ['PATH']}")

    assert done.stdout.splitlines() == chains


def test_chains_that_nft_does_not_know_are_noted_too(host: StockHost) -> None:
    """No finding of a machine, then: they are its owner's. A file of /proc has no size, whatever is in it."""
    host.write("proc/net/ip_tables_names", "raw\n")
    host.says("iptables-legacy-save", "# saved\n*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DROP\nCOMMIT\n")
    text = PREPARE.read_text()
    begin = text.index("legacy_chains() {\n")
    function = text[begin : text.index("\n}\n", begin) + 3].replace("/proc/", f"{host.folder}/proc/")
    done = run(["sh", "-c", f"{function}legacy_chains"], PATH=f"{host.programs}:{os.environ['PATH']}")

    assert done.stdout.splitlines() == ["legacy raw PREROUTING -"]
    assert "-s /proc" not in text


def test_packages_are_those_that_are_fetched_for_the_bundle() -> None:
    """fetch-packages reads the line of prepare."""
    assert (ROOT / "infra/hosts/fetch-packages").read_text().count('s/^PACKAGES="\\(.*\\)"$/\\1/p') == 1
    assert sum(line.startswith('PACKAGES="') and line.endswith('"') for line in PREPARE.read_text().splitlines()) == 1


# -- install and give-back -------------------------------------------------------------------------------------------

# what they do, in the host's folder; a package is a line NAME STATUS VERSION
INSTALLERS = {
    "dpkg-query": """
        for last; do :; done
        case $* in
            *Package*Status*Version*) cat var/lib/packages ;;
            *Package*Status*) cut -d" " -f1,2 var/lib/packages ;;
            *Package*Version*) cut -d" " -f1,3 var/lib/packages ;;
            *) sed -n "s/^$last \\([a-z]*\\) .*/\\1/p" var/lib/packages ;;
        esac""",
    "apt-get": """
        case $* in *--download-only* | *update*) exit ;; esac
        for it; do
            case $it in -* | *=* | install) continue ;; esac
            grep -q "^$it " var/lib/packages || echo "$it installed 2" >> var/lib/packages
        done""",
    "dpkg": """
        [ "$1" = --purge ] || exit 0
        shift
        for it; do sed -i "/^$it /d" var/lib/packages; done""",
    "getent": "grep ^core: etc/passwd",
    "useradd": "for file in etc/passwd etc/group; do echo core:x:1000 >> $file; done; mkdir -p home/core",
    "userdel": "sed -i /^core:/d etc/passwd etc/group; rm -rf home/core",
    **dict.fromkeys(
        ("systemctl", "sshd", "pkill", "groupdel", "nft"), 'case "$*" in "cat "*|"is-enabled "*) exit 1; esac'
    ),
}
OWN_DAEMON = '{"log-level": "warn"}\n'


class InstallingHost(StockHost):
    """A host whose packages are lines of a file, and whose users are lines of /etc/passwd."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.write("etc/passwd", "root:x:0\n")
        self.write("etc/group", "root:x:0\n")
        self.write("etc/ssh/sshd_config.d/own.conf", "Port 22\n")
        self.write("etc/docker/daemon.json", OWN_DAEMON)
        self.write("proc/sys/net/ipv4/ip_forward", "0\n")
        self.write("var/lib/packages", "bash installed 5\nnftables installed 1\n")
        for place in ("etc/systemd/system", "usr/local/bin", "etc/sudoers.d", "home", "var/cache"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / "run/systemd/system/own.service").touch()
        bundle = folder / "var/lib/platform-bundle"
        for name in ("bin/fleetd", "bin/fleetctl"):
            self.write(f"var/lib/platform-bundle/{name}", "#!/bin/sh\n")
            (bundle / name).chmod(0o755)
        # the bundle's files go to /, which is a folder here
        for name in ("etc/docker/daemon.json", "etc/ssh/sshd_config.d/platform.conf", "usr/local/sbin/deep/er/program"):
            self.write(f"var/lib/platform-bundle/files{folder}/{name}", "HostKey of ours\nours\n")
        for name, what in INSTALLERS.items():
            self.does(name, f"cd {folder}\n{what}")

    def does(self, name: str, what: str) -> None:
        (self.programs / name).write_text(f"#!/bin/sh\n{what}\n")
        (self.programs / name).chmod(0o755)

    def broken_off(self, word: str, after: int) -> bool:
        """All that runs is killed as one more program than these is called. Whether that many were."""
        count = self.folder / "count.answer"
        count.write_text("")
        real, self.programs = self.programs, self.folder / "cut"
        self.programs.mkdir()
        for program in real.iterdir():
            self.does(
                program.name, f"printf . >> {count}\nread -r called < {count}\n"
                f'[ ${{#called}} -le {after} ] || kill -KILL 0\nexec {real}/{program.name} "$@"',
            )  # fmt: skip
        done = self(word)
        shutil.rmtree(self.programs)
        self.programs = real
        return done.returncode != 0

    def everything(self) -> dict[str, tuple[int, str]]:
        """Mode and contents of all there is, but of the bundle, the acted programs and what is logged."""
        return {
            str(path.relative_to(self.folder)): (path.lstat().st_mode, path.read_text() if path.is_file() else "")
            for path in files(self.folder)
            if not {self.programs, self.folder / "var/lib/platform-bundle"} & {path, *path.parents}
            and path.suffix not in (".answer", ".log")
        }


@pytest.fixture
def installing(tmp_path: Path) -> InstallingHost:
    return InstallingHost(tmp_path)


def test_a_host_is_given_back_as_it_was(installing: InstallingHost) -> None:
    before = installing.everything()
    done = installing("install")
    after = installing.everything()
    again = installing("install")

    assert (done.returncode, done.stderr) == (0, "") == (again.returncode, again.stderr)
    assert after == installing.everything()
    assert "core:" in after["etc/passwd"][1] and "etcd-server installed" in after["var/lib/packages"][1]
    assert after["etc/ssh/sshd_config.d/platform.conf"][1] == "ours\n", "it keeps the keys that it has"
    assert after["usr/local/sbin/deep/er/program"] and after["etc/docker/daemon.json"][1] != OWN_DAEMON

    back = installing("give-back")
    assert back.stderr == "" and (back.returncode, back.stdout) == (0, "")
    assert installing.everything() == before


# install calls 101 programs and give-back 124: every one was tried once, these are tried always
@pytest.mark.parametrize("after", [27, 58, 96])
def test_what_broke_off_is_done_by_the_next(installing: InstallingHost, after: int) -> None:
    before = installing.everything()
    assert installing("install").returncode == 0
    whole = installing.everything()

    assert installing.broken_off("give-back", after)
    assert installing("give-back").returncode == 0
    assert installing.everything() == before

    assert installing.broken_off("install", after)
    assert installing("give-back").returncode == 0
    assert installing.everything() == before

    assert installing.broken_off("install", after)
    assert installing("install").returncode == 0
    assert installing.everything() == whole
