"""deploy-blog: what it refuses, and what its shell scripts do to machines, for real, in folders of this machine."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import io
import json
import os
import re
import shlex
import tarfile
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from harness.commands import deploy_blog as deployment
from harness.commands.deploy_blog import Deployment, deploy, main, release_archive
from harness.drivers.contents import Contents, release_digest
from harness.drivers.site import Page, Site
from harness.errors import CommandFailed, ExitStatus, Misconfigured, PlatformWrong
from harness.record.log import Recorder
from harness.seams.http import SiteUnreachable
from harness.seams.ssh import MachineUnreachable
from harness.seams.wait import NotAnswering, Waiter
from tests.fakes import FakeClock
from tests.transcripts.machines import FOLDER, NAMES, FolderMachines

OLD, NEW, LATER = "a" * 16, "b" * 16, "c" * 16
FETCH = Path(__file__).parents[2] / "infra/image/files/usr/local/sbin/fetch-contents"


def site_folder(folder: Path, text: str = "hello") -> Path:
    """A site's contents: a page that holds `text`, and a picture in a folder."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(text)
    (folder / "images/a b.svg").write_bytes(b"<svg/>")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return site_folder(tmp_path / "contents")


def members(archive: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {entry.name.removeprefix("./"): entry for entry in tar.getmembers()}


# -- contents that are refused ---------------------------------------------------------------------------------------


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="is no folder: give the folder"):
        release_archive(tmp_path / "nowhere", NEW)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (b"caf\xe9.html", r"caf\\udce9\.html has a name that is no UTF-8"),
        (b"a\\b.html", r"has a backslash or a control character in its name"),
        (b"a\nb.html", r"a\\nb\.html has a backslash or a control character in its name"),
        (b"a\rb.html", r"has a backslash or a control character in its name"),
    ],
)
def test_names_that_machines_would_not_agree_about_are_refused(folder: Path, name: bytes, said: str) -> None:
    Path(os.fsdecode(os.fsencode(folder / "images") + b"/" + name)).touch()

    with pytest.raises(Misconfigured, match=said) as refused:
        release_archive(folder, NEW)
    assert str(refused.value).isprintable() and str(refused.value).isascii()


def test_names_in_any_language_are_taken(folder: Path) -> None:
    names = ["夜\u3000空.html", "a\xa0b.html", "web\u2028front.html", "..."]
    for name in names:
        (folder / name).touch()

    assert set(names) <= set(members(release_archive(folder, NEW)))


def test_what_is_no_file_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "images/pipe")

    with pytest.raises(Misconfigured, match="images/pipe is no file: a socket, a pipe or a device cannot be served"):
        release_archive(folder, NEW)


@pytest.mark.parametrize("leads_to", ["loop.html", "nowhere"])
def test_links_that_lead_nowhere_are_refused(folder: Path, leads_to: str) -> None:
    (folder / "loop.html").symlink_to(leads_to)

    with pytest.raises(Misconfigured, match=r"loop\.html is a link that leads nowhere, or round in a circle"):
        release_archive(folder, NEW)


@pytest.mark.parametrize("repository", [".git", ".hg", ".svn"])
def test_a_repository_is_not_served_to_everybody(folder: Path, repository: str) -> None:
    (folder / repository).mkdir()
    (folder / repository / "config").touch()

    with pytest.raises(Misconfigured, match=rf"{repository} would be served to everybody"):
        release_archive(folder, NEW)


def test_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()

    with pytest.raises(Misconfigured, match="is no folder"):
        release_archive(tmp_path / "index.html", NEW)


@pytest.mark.parametrize("make", [Path.unlink, lambda page: (page.unlink(), page.mkdir())])
def test_folder_without_index_html(folder: Path, make: Callable[[Path], object]) -> None:
    make(folder / "index.html")

    with pytest.raises(Misconfigured, match=r"has no index\.html"):
        release_archive(folder, NEW)


def test_version_file_in_the_way(folder: Path) -> None:
    (folder / "version.txt").touch()

    with pytest.raises(Misconfigured, match=r"version\.txt is in the way"):
        release_archive(folder, NEW)


@pytest.mark.parametrize("target", ["/etc/hostname", "/etc", "../..", "../../outside", "../../contents-of-another"])
def test_link_that_leads_out_of_the_folder(folder: Path, target: str) -> None:
    (folder / "images/link").symlink_to(target)

    with pytest.raises(Misconfigured, match="images/link leads out of"):
        release_archive(folder, NEW)


def test_link_that_leads_nowhere(folder: Path) -> None:
    (folder / "link.html").symlink_to("missing.html")

    with pytest.raises(Misconfigured, match=r"link\.html is a link that leads nowhere"):
        release_archive(folder, NEW)


def test_file_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # by what the system says: root, who may run this, can read every file
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).suffix != ".svg")

    with pytest.raises(Misconfigured, match=r"a b\.svg cannot be read"):
        release_archive(folder, NEW)


def test_link_to_its_own_folder_is_refused(folder: Path) -> None:
    (folder / "images/again").symlink_to("..")

    with pytest.raises(Misconfigured):
        release_archive(folder, NEW)


# -- the archive -----------------------------------------------------------------------------------------------------


def test_archive_holds_the_contents_and_their_version(folder: Path) -> None:
    archive = release_archive(folder, NEW)

    assert sorted(members(archive)) == [".", "images", "images/a b.svg", "index.html", "version.txt"]
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        version = tar.extractfile("version.txt")
        assert version is not None and version.read() == f"{NEW}\n".encode()


def test_archive_can_be_read_by_everyone_and_belongs_to_nobody(folder: Path) -> None:
    (folder / "index.html").chmod(0o600)
    (folder / "images").chmod(0o700)

    entries = members(release_archive(folder, NEW))

    assert {name: oct(entry.mode) for name, entry in entries.items()} == {
        ".": "0o755",
        "images": "0o755",
        "images/a b.svg": "0o644",
        "index.html": "0o644",
        "version.txt": "0o644",
    }
    assert {(entry.uid, entry.gid, entry.uname, entry.gname) for entry in entries.values()} == {(0, 0, "", "")}


def test_archive_holds_what_a_link_inside_leads_to(folder: Path) -> None:
    (folder / "copy.html").symlink_to("index.html")

    entry = members(release_archive(folder, NEW))["copy.html"]

    assert entry.isreg() and entry.size == len("hello")


def test_archive_of_the_same_contents_is_the_same(folder: Path) -> None:
    assert gzip.decompress(release_archive(folder, NEW)) == gzip.decompress(release_archive(folder, NEW))


# -- deployments -----------------------------------------------------------------------------------------------------


class Told(Site):
    """The site as its web server would serve it: what `current` of the entry point holds, unless it is broken."""

    def __init__(self, machines: FolderMachines) -> None:
        self.name, self.domain = "blog", "genkisugimoto.com"
        self._core = machines.core("coreos-0")
        self.instead: str | BaseException = ""

    def fetch(self, path: str = "/") -> Page:
        if isinstance(self.instead, BaseException):
            raise self.instead
        body = self.instead.encode() or (self._core / "blog/current/version.txt").read_bytes()
        return Page("http://genkisugimoto.com/version.txt", 200, "text/plain", body)


class Remembering(FolderMachines):
    """Folders, with fetch-contents on each, and the etcd of the machines, which remembers what was deployed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.values: list[str] = []  # what was deployed last, each in its time; "" where that was removed
        self.refusing: BaseException | None = None  # raised instead of the next change
        self.lost_answer: BaseException | None = None  # raised after a change was made
        self.silent: BaseException | None = None  # raised whatever etcd is asked
        self.changed: Callable[[str], object] = lambda command: None  # called with each change that etcd takes
        self._etcd = root / "etcd.json"
        (root / "machine.env").write_text('MACHINE_NAME=coreos-0 MACHINES="" PATIENCE=1\n')
        for name in NAMES:
            (root / f"bin-{name}").mkdir()
            text = FETCH.read_text().replace("/etc/platform/machine.env", str(root / "machine.env"))
            text = text.replace("$(curl ", f"$(cat {self._etcd}; : ").replace("/home/core", str(self.core(name)))
            self.program(name).write_text(text)
            self.program(name).chmod(0o755)
        self.remembers("")

    def program(self, name: str) -> Path:
        return self.root / f"bin-{name}/fetch-contents"

    def remembers(self, value: str) -> None:
        """This is what etcd says from now on."""
        nodes = [{"key": "/platform/deployed/blog", "value": value}] if value else []
        text = json.dumps({"action": "get", "node": {"dir": True, "nodes": nodes}}, separators=(",", ":"))
        self._etcd.write_text(text)
        if value or self.values:
            self.values.append(value)

    def run(self, name: str, command: str, *, data: bytes = b"", ok: Iterable[int] = (0,), kept: int = 0) -> str:
        if "v2/keys/platform/deployed/blog" in command:
            return self._ask(name, command)
        here = command.replace("/usr/local/sbin/fetch-contents", str(self.program(name)))
        return super().run(name, here, data=data, ok=ok)

    def _ask(self, name: str, command: str) -> str:
        assert name == self.entry_point
        if self.silent is not None:
            raise self.silent
        now = self.values[-1] if self.values else ""
        words = shlex.split(command)
        if "-X" not in words:
            return json.dumps({"node": {"value": now}} if now else {"errorCode": 100})
        if self.refusing is not None:
            refusing, self.refusing = self.refusing, None
            raise refusing
        wanted = re.search(r"prevValue=([^' ]+(?: \w+)?)", command)
        if wanted and urllib.parse.unquote(wanted[1]) != now:
            raise CommandFailed(["curl"], 22, "", "curl: (22) The requested URL returned error: 412", where=name)
        self.changed(command)
        self.remembers(words[-1].removeprefix("value=") if "PUT" in words else "")
        if self.lost_answer is not None:
            raise self.lost_answer
        return ""

    @property
    def remembered(self) -> list[str]:
        """The versions."""
        return [value.partition(" ")[0] for value in self.values]


@pytest.fixture
def machines(tmp_path: Path) -> Remembering:
    machines = Remembering(tmp_path / "machines")
    for name in NAMES:
        (machines.core(name) / "blog").mkdir()
        (machines.core(name) / "blog/README.txt").touch()  # what provisioning puts there
    return machines


@pytest.fixture
def site(machines: FolderMachines) -> Told:
    return Told(machines)


@pytest.fixture
def bring(
    machines: FolderMachines, site: Told, folder: Path, recorder: Recorder, clock: FakeClock
) -> Callable[..., None]:
    """Deploys contents that hold their version as a page."""

    def bring(version: str) -> None:
        site_folder(folder, version)
        Deployment(site, machines, Waiter(recorder, clock), version).bring(release_archive(folder, version))

    return bring


def releases(machines: FolderMachines, name: str = "coreos-0") -> set[str]:
    return {path.name for path in (machines.core(name) / "blog/releases").glob("*")}


def served(machines: FolderMachines) -> dict[str, str]:
    """Machine -> the page that it would serve; "" where nothing is deployed."""
    pages = {name: machines.core(name) / "blog/current/index.html" for name in NAMES}
    return {name: page.read_text() if page.is_file() else "" for name, page in pages.items()}


def digests(machines: FolderMachines) -> dict[str, str]:
    """Machine -> the digest of all files of the release that is current there."""
    found = {}
    for name in NAMES:
        current = (machines.core(name) / "blog/current").resolve()
        files = {path.relative_to(current).as_posix(): path for path in current.rglob("*") if path.is_file()}
        found[name] = release_digest({name: path.read_bytes() for name, path in files.items()})
    return found


def everywhere(text: str) -> dict[str, str]:
    return dict.fromkeys(NAMES, text)


def failing(text: str, machine: str, error: BaseException | None = None, times: int = 9) -> Callable[[str, str], None]:
    """Fails the commands that hold `text` on one machine, instead of running them; so many of them."""
    failed: list[str] = []

    def before(name: str, command: str) -> None:
        if name == machine and text in command and len(failed) < times:
            failed.append(command)
            raise error or CommandFailed(["sh"], 1, "", "No space left on device", where=name)

    return before


UNPACKS, SWITCHES, PRUNES = "tar -x", "fetch-contents", "xargs"


def test_first_deployment(bring: Callable[..., None], machines: FolderMachines) -> None:
    bring(OLD)

    assert served(machines) == everywhere(OLD)
    for name in NAMES:
        current = machines.core(name) / "blog/current"
        assert current.is_symlink() and str(current.readlink()) == f"releases/{OLD}"
        assert (current / "version.txt").read_text() == f"{OLD}\n"
        assert (current / "images/a b.svg").read_bytes() == b"<svg/>"
        assert releases(machines, name) == {OLD}


def test_second_deployment_keeps_the_first_release(bring: Callable[..., None], machines: FolderMachines) -> None:
    bring(OLD)
    bring(NEW)

    assert served(machines) == everywhere(NEW)
    assert [releases(machines, name) for name in NAMES] == [{OLD, NEW}] * len(NAMES)


def test_nothing_is_left_beside_the_releases(bring: Callable[..., None], machines: FolderMachines) -> None:
    bring(OLD)
    bring(NEW)

    for name in NAMES:
        assert {path.name for path in (machines.core(name) / "blog").iterdir()} == {"README.txt", "current", "releases"}


@contextlib.contextmanager
def reader(machines: FolderMachines) -> Iterator[list[str]]:
    """Reads the entry point's page and its version over and over, as a web server would; gives what was wrong."""
    current = machines.core("coreos-0") / "blog/current"
    wrong: list[str] = []
    rounds, over = threading.Semaphore(0), threading.Event()

    def read() -> None:
        while not over.is_set():
            try:
                page = (current / "index.html").read_text()
            except OSError as missing:
                wrong.append(str(missing))
            else:
                if page not in (OLD, NEW):
                    wrong.append(page)
            rounds.release()

    thread = threading.Thread(target=read)
    thread.start()
    rounds.acquire()
    try:
        yield wrong
    finally:
        rounds.acquire()
        over.set()
        thread.join()


def test_reader_never_misses_the_contents(bring: Callable[..., None], machines: FolderMachines) -> None:
    bring(OLD)
    with reader(machines) as wrong:
        bring(NEW)

    assert wrong == []


def test_reader_never_misses_the_contents_while_it_goes_back(
    bring: Callable[..., None], machines: FolderMachines, site: Told
) -> None:
    bring(OLD)
    site.instead = "0" * 16
    with reader(machines) as wrong, pytest.raises(PlatformWrong):
        bring(NEW)

    assert wrong == []


@pytest.mark.parametrize(
    "instead", ["0" * 16, "<html>", SiteUnreachable("genkisugimoto.com cannot be reached: refused")]
)
def test_site_that_does_not_tell_the_new_version_takes_every_machine_back(
    bring: Callable[..., None], machines: FolderMachines, site: Told, instead: str | BaseException
) -> None:
    bring(OLD)
    site.instead = instead

    with pytest.raises(PlatformWrong, match="was not deployed, the version before is served") as raised:
        bring(NEW)

    assert served(machines) == everywhere(OLD)
    assert [releases(machines, name) for name in NAMES] == [{OLD}] * len(NAMES)
    assert raised.value.expected == f"version {NEW} at http://genkisugimoto.com/version.txt"


def test_site_has_ten_seconds_to_tell_the_new_version(
    bring: Callable[..., None], machines: FolderMachines, site: Told, clock: FakeClock
) -> None:
    bring(OLD)
    site.instead = SiteUnreachable("refused")
    began = clock.now

    with pytest.raises(PlatformWrong):
        bring(NEW)

    assert 10 <= clock.now - began < 11


def test_first_deployment_that_does_not_answer_leaves_nothing(
    bring: Callable[..., None], machines: FolderMachines, site: Told
) -> None:
    site.instead = "0" * 16

    with pytest.raises(PlatformWrong):
        bring(NEW)

    assert served(machines) == everywhere("")
    assert releases(machines) == set()
    assert not (machines.core("coreos-0") / "blog/current").is_symlink()


@pytest.mark.parametrize("text", [UNPACKS, SWITCHES])
def test_machine_that_fails_leaves_none_switched(
    bring: Callable[..., None], machines: FolderMachines, text: str
) -> None:
    bring(OLD)
    machines.before = failing(text, "coreos-1", times=1)

    with pytest.raises(PlatformWrong, match="No space left on device"):
        bring(NEW)

    assert served(machines) == everywhere(OLD)
    assert [releases(machines, name) for name in NAMES] == [{OLD}] * len(NAMES)


def test_disk_that_is_full_while_unpacking_leaves_no_half_release(
    bring: Callable[..., None], machines: FolderMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(OLD)
    monkeypatch.setattr(deployment, "UNPACK", deployment.UNPACK.replace("tar -xz", "head -c 200 | tar -xz"))

    with pytest.raises(PlatformWrong, match="was not deployed"):
        bring(NEW)

    assert served(machines) == everywhere(OLD)
    assert [releases(machines, name) for name in NAMES] == [{OLD}] * len(NAMES)


def test_machine_without_the_sites_folder_fails(bring: Callable[..., None], machines: FolderMachines) -> None:
    (machines.core("coreos-2") / "blog/README.txt").unlink()
    (machines.core("coreos-2") / "blog").rmdir()

    with pytest.raises(PlatformWrong, match="blog"):
        bring(NEW)

    assert served(machines) == everywhere("")


def test_machine_that_falls_silent_does_not_keep_the_others_from_going_back(
    bring: Callable[..., None], machines: FolderMachines, site: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    bring(OLD)
    site.instead = "0" * 16
    machines.before = failing(SWITCHES, "coreos-1", MachineUnreachable("machine coreos-1 does not answer over SSH"))

    served_then = "the version before is served, by coreos-1 as soon as that can: "
    with pytest.raises(PlatformWrong, match=served_then):
        bring(NEW)

    assert served(machines) == everywhere(OLD)
    assert f"coreos-1 still holds version {NEW}: machine coreos-1 does not answer" in capsys.readouterr().err


def test_machine_that_is_lost_before_it_switches_does_so_when_it_is_back(
    bring: Callable[..., None], machines: Remembering, capsys: pytest.CaptureFixture[str]
) -> None:
    bring(OLD)
    silent = MachineUnreachable("machine coreos-1 does not answer over SSH")
    machines.before = failing(SWITCHES, "coreos-1", silent)
    bring(NEW)

    assert served(machines) == {**everywhere(NEW), "coreos-1": OLD}
    assert f"coreos-1 switches when it is back: {silent}" in capsys.readouterr().err
    machines.before = lambda name, command: None
    machines.run("coreos-1", "/usr/local/sbin/fetch-contents --now blog")
    assert served(machines) == everywhere(NEW)


def test_interruption_goes_back(bring: Callable[..., None], machines: FolderMachines, site: Told) -> None:
    bring(OLD)
    site.instead = KeyboardInterrupt()

    with pytest.raises(KeyboardInterrupt):
        bring(NEW)

    assert served(machines) == everywhere(OLD)
    assert releases(machines) == {OLD}


def test_interruption_while_switching_goes_back(bring: Callable[..., None], machines: FolderMachines) -> None:
    bring(OLD)
    machines.before = failing(SWITCHES, "coreos-2", KeyboardInterrupt(), times=1)

    with pytest.raises(KeyboardInterrupt):
        bring(NEW)

    assert served(machines) == everywhere(OLD)
    assert machines.remembered == [OLD, NEW, OLD]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), Misconfigured("wrong"), SystemExit(1)])
def test_every_other_error_goes_back_too(
    bring: Callable[..., None], machines: FolderMachines, site: Told, error: BaseException
) -> None:
    bring(OLD)
    site.instead = error

    with pytest.raises(type(error)):
        bring(NEW)

    assert served(machines) == everywhere(OLD)


# -- what is remembered ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        CommandFailed(["curl"], 22, "", "curl: (22) The requested URL returned error: 500", where="coreos-0"),
        MachineUnreachable("machine coreos-0 does not answer over SSH"),
        KeyboardInterrupt(),
    ],
)
def test_deployment_that_cannot_be_remembered_goes_back(
    bring: Callable[..., None], machines: Remembering, error: BaseException
) -> None:
    """etcd answers afterwards, and says that it did not take it."""
    bring(OLD)
    machines.refusing = error

    with pytest.raises((PlatformWrong, KeyboardInterrupt), match="the version before is served"):
        bring(NEW)

    assert served(machines) == everywhere(OLD)
    assert [releases(machines, name) for name in NAMES] == [{OLD}] * len(NAMES)
    assert machines.remembered == [OLD]


def test_first_deployment_that_cannot_be_remembered_leaves_nothing(
    bring: Callable[..., None], machines: Remembering
) -> None:
    machines.refusing = CommandFailed(
        ["curl"], 22, "", "curl: (22) The requested URL returned error: 500", where="coreos-0"
    )

    with pytest.raises(PlatformWrong, match="error: 500"):
        bring(NEW)

    assert served(machines) == everywhere("") and releases(machines) == set()


def test_etcd_without_a_majority_has_ten_seconds_and_nothing_is_changed(
    bring: Callable[..., None], machines: Remembering, clock: FakeClock
) -> None:
    bring(OLD)
    machines.silent = NotAnswering(["curl"], 28, "", "curl: (28) Operation timed out", where="coreos-0")
    began = clock.now

    with pytest.raises(PlatformWrong, match="was not deployed, the version before is served: etcd has a majority"):
        bring(NEW)

    assert 10 <= clock.now - began < 11
    assert served(machines) == everywhere(OLD)
    assert [releases(machines, name) for name in NAMES] == [{OLD}] * len(NAMES)
    assert machines.remembered == [OLD]


def test_release_that_etcd_may_still_take_stays_on_the_machines(
    bring: Callable[..., None], machines: Remembering
) -> None:
    """The majority was lost while it was told: when it is there again, it may say the one or the other."""
    bring(OLD)
    silent = NotAnswering(["curl"], 28, "", "curl: (28) Operation timed out", where="coreos-0")

    def lose(command: str) -> None:
        machines.silent = silent

    machines.lost_answer = silent
    machines.changed = lose
    with pytest.raises(PlatformWrong, match="every machine serves what etcd says when it answers again"):
        bring(NEW)

    assert [releases(machines, name) for name in NAMES] == [{OLD, NEW}] * len(NAMES)
    for name in NAMES:
        machines.run(name, "/usr/local/sbin/fetch-contents --now blog")
    assert served(machines) == everywhere(NEW)


@pytest.mark.parametrize("instead", ["0" * 16, SiteUnreachable("refused"), KeyboardInterrupt()])
def test_deployment_that_went_back_is_not_remembered(
    bring: Callable[..., None], machines: Remembering, site: Told, instead: str | BaseException
) -> None:
    bring(OLD)
    site.instead = instead

    with pytest.raises((PlatformWrong, KeyboardInterrupt)):
        bring(NEW)

    assert machines.remembered == [OLD, NEW, OLD]
    assert Contents(machines).deployed_last("blog").version == OLD


def test_deployment_that_goes_back_leaves_a_later_one_alone(
    bring: Callable[..., None], machines: Remembering, site: Told
) -> None:
    bring(OLD)
    bring(LATER)
    later = machines.values[-1]
    machines.remembers(machines.values[0])
    site.instead = "0" * 16

    def overtake(name: str, command: str) -> None:
        if SWITCHES in command and machines.remembered[-1] == NEW:
            machines.remembers(later)

    machines.before = overtake
    with pytest.raises(PlatformWrong, match="was not deployed"):
        bring(NEW)

    assert machines.remembered[-1] == LATER
    assert served(machines) == everywhere(LATER)


@pytest.mark.parametrize("text", [UNPACKS, SWITCHES])
def test_deployment_that_failed_on_a_machine_is_not_remembered(
    bring: Callable[..., None], machines: Remembering, text: str
) -> None:
    machines.before = failing(text, "coreos-1")

    with pytest.raises(PlatformWrong):
        bring(NEW)

    assert machines.remembered == ([] if text == UNPACKS else [NEW, ""])


def test_what_is_remembered_is_what_the_machines_hold(bring: Callable[..., None], machines: Remembering) -> None:
    bring(OLD)
    deployed = Contents(machines).deployed_last("blog")
    assert digests(machines) == dict.fromkeys(NAMES, deployed.digest)

    for name, spoil in (("coreos-0", "echo x >> index.html"), ("coreos-1", "echo x > more.html")):
        machines.run(name, f"cd /home/core/blog/current && {spoil}")
    changed = digests(machines)
    assert len(set(changed.values())) == 3 and changed["coreos-2"] == deployed.digest


def test_deployment_is_remembered_before_any_machine_switches(
    bring: Callable[..., None], machines: Remembering
) -> None:
    bring(OLD)
    found = []
    machines.changed = lambda command: found.append((served(machines), [releases(machines, name) for name in NAMES]))
    bring(NEW)

    assert found == [(everywhere(OLD), [{OLD, NEW}] * len(NAMES))]


def test_deployment_is_remembered_when_the_site_told_it(bring: Callable[..., None], machines: Remembering) -> None:
    bring(OLD)
    bring(NEW)

    assert machines.remembered == [OLD, NEW]
    assert Contents(machines).deployed_last("blog").version == NEW


def test_deployment_whose_pruning_fails_stays_and_is_remembered(
    bring: Callable[..., None], machines: Remembering
) -> None:
    bring(OLD)
    machines.before = failing(PRUNES, "coreos-1")

    with pytest.raises(PlatformWrong):
        bring(NEW)

    assert served(machines) == everywhere(NEW)
    assert machines.remembered[-1] == NEW


def test_machine_that_is_lost_before_it_prunes_is_no_failure(bring: Callable[..., None], machines: Remembering) -> None:
    machines.before = failing(PRUNES, "coreos-1", MachineUnreachable("machine coreos-1 does not answer over SSH"))
    bring(NEW)

    assert served(machines) == everywhere(NEW)


def test_etcd_that_does_not_take_a_version_back_is_told(
    bring: Callable[..., None], machines: Remembering, site: Told
) -> None:
    bring(OLD)
    site.instead = "0" * 16
    refusal = CommandFailed(["curl"], 22, "", "curl: (22) The requested URL returned error: 500", where="coreos-0")
    machines.changed = lambda command: setattr(machines, "refusing", refusal)

    with pytest.raises(PlatformWrong, match="and is served all the same, for etcd did not take it back"):
        bring(NEW)

    assert served(machines) == everywhere(NEW)
    assert machines.remembered[-1] == NEW


# -- what is pruned --------------------------------------------------------------------------------------------------


def test_pruning_keeps_three_releases(bring: Callable[..., None], machines: FolderMachines) -> None:
    versions = [f"{index:016d}" for index in range(6)]
    for version in versions:
        bring(version)

    assert [len(releases(machines, name)) for name in NAMES] == [3] * len(NAMES)
    assert versions[-1] in releases(machines)


def test_pruning_keeps_the_newest_releases(bring: Callable[..., None], machines: FolderMachines, folder: Path) -> None:
    versions = ["e" * 16, "d" * 16, "c" * 16, "b" * 16, "a" * 16]
    for age, version in enumerate(versions):
        os.utime(folder, (2e9 - 1000 * age, 2e9 - 1000 * age))  # each folder of contents is older than the one before
        bring(version)

    assert releases(machines) == set(versions[-3:])


def test_pruning_keeps_the_current_release_whatever_its_age(
    bring: Callable[..., None], machines: FolderMachines
) -> None:
    for version in "dcb":
        bring(version * 16)
    os.utime(machines.core("coreos-0") / "blog/releases" / ("b" * 16), (0, 0))

    machines.run("coreos-0", shlex.join(["sh", "-c", deployment.PRUNE, "deploy", "blog", "1"]))

    assert releases(machines) == {"b" * 16}


def test_what_a_killed_deployment_left_goes_before_the_next_is_unpacked(
    bring: Callable[..., None], machines: FolderMachines
) -> None:
    """There may be no room for both."""
    for name in NAMES:
        (machines.core(name) / "blog/releases/0000.partial").mkdir(parents=True)

    def before(name: str, command: str) -> None:
        assert SWITCHES not in command or releases(machines, name) == {NEW}

    machines.before = before
    bring(NEW)


def test_what_somebody_fills_just_now_is_left_alone(bring: Callable[..., None], machines: FolderMachines) -> None:
    filled = machines.core("coreos-1") / "blog/releases/0000.partial"
    filled.mkdir(parents=True)
    lock = os.open(filled, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    for version in "abcd":
        bring(version * 16)
    assert filled.is_dir() and len(releases(machines, "coreos-1")) == 4

    os.close(lock)
    bring("e" * 16)
    assert not filled.exists()


# -- deploy ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's folder: a target, whose terraform gives the recorded outputs."""
    (tmp_path / "infra/local").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/terraform"
    program.write_text(f"#!/bin/sh\nexec cat {FOLDER}/outputs.json\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("TARGET", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


@pytest.mark.parametrize("site", ["", "Blog", "../blog", "blog; rm -rf /", "-blog", "blog\n"])
def test_name_that_no_site_can_have(here: Path, folder: Path, site: str) -> None:
    with pytest.raises(Misconfigured, match="is no site's name"):
        deploy(site, folder)


def test_site_that_the_target_does_not_know(here: Path, folder: Path) -> None:
    with pytest.raises(Misconfigured, match="there is no site shop: sites are blog, jpblog"):
        deploy("shop", folder)


def test_folder_that_is_not_the_runbooks(here: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)

    with pytest.raises(Misconfigured, match="there is no infra/local here"):
        deploy("blog", folder)


def test_target_that_does_not_exist(here: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARGET", "moon")

    with pytest.raises(Misconfigured, match="there is no infra/moon here"):
        deploy("blog", folder)


def test_contents_are_looked_at_before_the_cluster_is(here: Path) -> None:
    (here / "bin/terraform").unlink()

    with pytest.raises(Misconfigured, match="is no folder"):
        deploy("blog", here / "nowhere")


def test_cluster_that_was_not_built(here: Path, folder: Path) -> None:
    (here / "bin/terraform").write_text("#!/bin/sh\necho '{}'\n")

    with pytest.raises(PlatformWrong, match="nothing has been applied"):
        deploy("blog", folder)


# -- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [[], ["blog"], ["blog", "a", "b"], ["--force", "blog", "a"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == ExitStatus.MISCONFIGURED
    assert "usage: deploy-blog" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == ExitStatus.VERIFIED
    assert "SITE" in capsys.readouterr().out


def test_refusal_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["blog", "nowhere"]) == ExitStatus.MISCONFIGURED

    out, err = capsys.readouterr()
    assert out == "" and err.startswith("deploy-blog: nowhere is no folder") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (PlatformWrong("version 1 was not deployed"), ExitStatus.PLATFORM_WRONG, "version 1 was not deployed"),
        (KeyboardInterrupt(), ExitStatus.INTERRUPTED, "interrupted"),
    ],
)
def test_deployment_that_fails(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: ExitStatus,
    line: str,
) -> None:
    def fail(site: str, folder: Path) -> str:
        raise error

    monkeypatch.setattr(deployment, "deploy", fail)

    assert main(["blog", "sites/blog"]) == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"deploy-blog: {line}")


def test_deployment_tells_the_new_version_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deployment, "deploy", lambda site, folder: NEW)

    assert main(["blog", "sites/blog"]) == ExitStatus.VERIFIED
    assert capsys.readouterr() == (f"{NEW}\n", "")
