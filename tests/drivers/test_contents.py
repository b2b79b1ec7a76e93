"""Contents: what the machines hold, compared with what they should; the commands run for real, in folders."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.drivers.contents import RELEASE_DIGEST, Contents, Deployed, deployed_key, release_digest
from harness.drivers.site import Page, Site
from harness.errors import CommandFailed, ExitStatus, PlatformWrong
from harness.seams.http import SiteUnreachable
from harness.seams.ssh import MachineUnreachable
from harness.seams.wait import NotAnswering
from tests.transcripts.machines import NAMES, FolderMachines, RecordedMachines

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = {"web/site.conf": b"server {}\n", "entry/configure.sh": b"#!/bin/sh\n", "blog/a name.txt": b"\xff\x00"}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "container", FILES)


@pytest.fixture
def machines(tmp_path: Path) -> FolderMachines:
    machines = FolderMachines(tmp_path / "machines")
    for name in NAMES:
        write(machines.core(name), FILES)
    return machines


@pytest.fixture
def contents(machines: FolderMachines) -> Contents:
    return Contents(machines)


class Served(Site):
    """A site that serves these files, and 404 for every other path."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.name = "blog"
        self.files = files

    def fetch(self, path: str = "/") -> Page:
        found = path in self.files
        return Page(path, 200 if found else 404, "text/plain", self.files[path] if found else b"not found")


# -- helper files ----------------------------------------------------------------------------------------------------


def test_file_that_one_machine_lacks(contents: Contents, machines: FolderMachines, source: Path) -> None:
    (machines.core("coreos-1") / "web/site.conf").unlink()

    assert contents.missing(source, "/home/core") == ["coreos-1: web/site.conf is missing"]


def test_file_with_other_bytes(contents: Contents, machines: FolderMachines, source: Path) -> None:
    (machines.core("coreos-2") / "entry/configure.sh").write_bytes(b"#!/bin/sh\r\n")

    assert contents.missing(source, "/home/core") == ["coreos-2: entry/configure.sh differs"]


def test_file_that_is_empty_on_every_machine(contents: Contents, machines: FolderMachines, source: Path) -> None:
    for name in NAMES:
        (machines.core(name) / "web/site.conf").write_bytes(b"")

    assert contents.missing(source, "/home/core") == [f"{name}: web/site.conf differs" for name in NAMES]


def test_folder_that_the_machines_lack(contents: Contents, source: Path) -> None:
    assert len(contents.missing(source, "/home/core/nowhere")) == len(NAMES) * len(FILES)


@pytest.mark.parametrize("place", ["empty", "nowhere"])
def test_source_without_files_proves_nothing(contents: Contents, tmp_path: Path, place: str) -> None:
    (tmp_path / "empty/folder").mkdir(parents=True)

    assert contents.missing(tmp_path / place, "/home/core") == [f"{tmp_path / place} holds no files to look for"]


def test_machines_that_hold_every_file(contents: Contents, machines: FolderMachines, source: Path) -> None:
    write(machines.core("coreos-0"), {".bashrc": b"", "blog/releases/a/index.html": b""})

    assert contents.missing(source, "/home/core") == []


def test_place_that_is_a_link_is_followed(contents: Contents, machines: FolderMachines, source: Path) -> None:
    for name in NAMES:
        (machines.core(name) / "current").symlink_to("web")

    assert contents.missing(source / "web", "/home/core/current") == []


def test_file_below_a_link_counts(contents: Contents, machines: FolderMachines, tmp_path: Path) -> None:
    for name in NAMES:
        (machines.core(name) / "current").symlink_to("web")

    source = write(tmp_path / "source", {"current/site.conf": FILES["web/site.conf"]})

    assert contents.missing(source, "/home/core") == []


# -- releases --------------------------------------------------------------------------------------------------------


def deploy(machines: FolderMachines, name: str, version: str, files: dict[str, bytes] | None = None) -> None:
    site = machines.core(name) / "blog"
    write(site / "releases" / version, {"version.txt": f"{version}\n".encode(), **(files or {})})
    (site / "current").unlink(missing_ok=True)
    (site / "current").symlink_to(f"releases/{version}")


def test_versions_before_any_deployment(contents: Contents) -> None:
    assert contents.versions("blog") == dict.fromkeys(NAMES, "none")


def test_versions_that_differ(contents: Contents, machines: FolderMachines) -> None:
    deploy(machines, "coreos-0", "0123456789abcdef")
    deploy(machines, "coreos-2", "fedcba9876543210")

    assert contents.versions("blog") == {
        "coreos-0": "0123456789abcdef",
        "coreos-1": "none",
        "coreos-2": "fedcba9876543210",
    }


def test_recorded_versions() -> None:
    assert Contents(RecordedMachines()).versions("blog") == dict.fromkeys(NAMES, "53abab651e59be13")


def test_site_that_serves_what_is_deployed(contents: Contents, machines: FolderMachines) -> None:
    deploy(machines, "coreos-0", "0123456789abcdef", {"a b/c.txt": b"c"})

    assert contents.differences("blog", Served({"/version.txt": b"0123456789abcdef\n", "/a%20b/c.txt": b"c"})) == []


def test_site_that_serves_other_bytes(contents: Contents, machines: FolderMachines) -> None:
    deploy(machines, "coreos-0", "0123456789abcdef", {"index.html": b"new", "style.css": b"new"})
    served = {"/version.txt": b"0123456789abcdef\n", "/index.html": b"old"}

    assert contents.differences("blog", Served(served)) == ["index.html", "style.css"]


def test_site_of_which_nothing_is_deployed(contents: Contents) -> None:
    assert contents.differences("blog", Served({})) == ["nothing is deployed as blog"]


def test_only_what_the_entry_point_holds_counts(contents: Contents, machines: FolderMachines) -> None:
    deploy(machines, "coreos-1", "0123456789abcdef")

    assert contents.differences("blog", Served({})) == ["nothing is deployed as blog"]


def test_site_that_cannot_be_reached_is_told(contents: Contents, machines: FolderMachines) -> None:
    class Silent(Served):
        def fetch(self, path: str = "/") -> Page:
            raise SiteUnreachable("the entry point refuses")

    deploy(machines, "coreos-0", "0123456789abcdef")

    with pytest.raises(SiteUnreachable):
        contents.differences("blog", Silent({}))


def test_machine_that_cannot_be_asked_is_told(contents: Contents, machines: FolderMachines, source: Path) -> None:
    def fail(name: str, command: str) -> None:
        if name == "coreos-1":
            raise CommandFailed([command], 255, "", "gone", where=name)

    machines.before = fail

    with pytest.raises(CommandFailed, match="gone"):
        contents.missing(source, "/home/core")


# names that a sort, a shell or a locale takes for something else
ODD = [
    "index.html", "a b/c d.txt", " blank first", "blank last ", "two  blanks", "tab\there", "-n", "--help", "$HOME",
    "*", "a'b", 'a"b', "a`b`", "Zebra", "apple", "äpfel", "日本語/記事.html", "a/b", "a.b", "a-b", "a", "deep/er/x",
    ".hidden",
]  # fmt: skip
UNTOLD = ["back\\slash", "line\nbreak"]  # sha256sum writes these otherwise: machine and machine must agree, no more


def odd_release(folder: Path, names: list[str]) -> dict[str, bytes]:
    """Writes a file of each name (where it is a folder too, into that); path -> contents."""
    files = {}
    for name in names:
        path = f"{name}/self" if any(other.startswith(f"{name}/") for other in names) else name
        files[path] = f"of {name}".encode() if name != "*" else b""
    write(folder, files)
    return files


def digest_of_first_boot(folder: Path) -> str:
    """What a machine that fetches a release takes for its digest."""
    script = (ROOT / "infra/image/files/usr/local/sbin/fetch-contents").read_text()
    (function,) = re.findall(r"(?ms)^digest\(\) \{.*?^\}$", script)
    return shell(f"{function}\ndigest {shlex.quote(str(folder))}")


def shell(script: str, folder: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        ["sh", "-euc", script],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_digest_of_a_release_is_the_same_wherever_it_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "a release"
    files = odd_release(folder, ODD)
    (folder / "link").symlink_to("index.html")  # followed: its bytes are served too
    expected = release_digest({**files, "link": files["index.html"]})

    assert shell(RELEASE_DIGEST, folder) == expected
    assert digest_of_first_boot(folder) == expected


@pytest.mark.parametrize("language", ["C", "C.UTF-8", "de_DE.UTF-8"])
def test_digest_does_not_depend_on_the_language(tmp_path: Path, language: str) -> None:
    files = odd_release(tmp_path / "release", ODD)

    assert shell(RELEASE_DIGEST, tmp_path / "release", LC_ALL=language, LANG=language) == release_digest(files)


def test_machines_agree_on_the_digest_of_names_that_no_line_holds(tmp_path: Path) -> None:
    odd_release(tmp_path / "release", [*ODD, *UNTOLD])

    assert digest_of_first_boot(tmp_path / "release") == shell(RELEASE_DIGEST, tmp_path / "release")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a b/c d.txt").write_bytes(b"other"),
        lambda folder: (folder / "Zebra").rename(folder / "zebra"),
        lambda folder: (folder / "apple").unlink(),
        lambda folder: (folder / "more").touch(),
        lambda folder: [(folder / "a-b").rename(folder / "x"), (folder / "a.b").rename(folder / "a-b"),
                        (folder / "x").rename(folder / "a.b")],
    ],
    ids=["bytes", "name", "one less", "one more", "exchanged"],
)  # fmt: skip
def test_digest_tells_other_files(tmp_path: Path, change: Callable[[Path], object]) -> None:
    folder = tmp_path / "release"
    odd_release(folder, ODD)
    before = digest_of_first_boot(folder)
    change(folder)

    assert digest_of_first_boot(folder) != before


def test_digests_of_releases_are_those_that_are_remembered(contents: Contents, machines: FolderMachines) -> None:
    files = {"version.txt": b"0123456789abcdef\n", "a b/c.txt": b"c"}
    for name in ("coreos-0", "coreos-2"):
        deploy(machines, name, "0123456789abcdef", files)

    assert contents.digests("blog") == {
        "coreos-0": release_digest(files), "coreos-1": "none", "coreos-2": release_digest(files),
    }  # fmt: skip


# -- what was deployed last ------------------------------------------------------------------------------------------

KNOWN = '{"action":"get","node":{"key":"/platform/deployed/blog","value":"0123456789abcdef f00","modifiedIndex":9}}\n'
UNKNOWN = '{"errorCode":100,"message":"Key not found","cause":"/platform/deployed","index":8}\n'


@pytest.mark.parametrize(
    "answer",
    [
        UNKNOWN,
        '{"node": {"value": "0123456789abcdef"}}',
        '{"node": {"value": ""}}',
        '{"node": {"dir": true}}',
    ],
)
def test_cluster_that_remembers_no_deployment(answer: str) -> None:
    machines = RecordedMachines().on("v2/keys/platform/deployed/blog", answer)

    with pytest.raises(PlatformWrong, match="the cluster remembers no deployment of blog") as raised:
        Contents(machines).deployed_last("blog")

    assert raised.value.status is ExitStatus.PLATFORM_WRONG
    assert raised.value.paste == "./bin/deploy-blog blog sites/blog"


def test_etcd_that_does_not_answer_is_told() -> None:
    """It may answer the next time that it is asked."""

    def refuse(command: str) -> str:
        raise CommandFailed([command], 7, "", "curl: (7) Failed to connect")

    with pytest.raises(NotAnswering, match="Failed to connect"):
        Contents(RecordedMachines().on("v2/keys", refuse)).deployed_last("blog")


def test_entry_point_that_is_silent_is_told_when_it_is_asked_what_was_deployed() -> None:
    machines = RecordedMachines().on("v2/keys", MachineUnreachable("machine coreos-0 does not answer over SSH"))

    with pytest.raises(MachineUnreachable):
        Contents(machines).deployed_last("blog")


def test_version_that_was_deployed_last_is_asked_of_the_entry_point() -> None:
    machines = RecordedMachines().on("v2/keys/platform/deployed/blog", KNOWN)

    assert Contents(machines).deployed_last("blog") == Deployed("0123456789abcdef", "f00")
    ((name, command),) = machines.asked
    assert name == machines.entry_point and f"v2/keys{deployed_key('blog')}?" in command


def test_each_site_is_remembered_by_itself() -> None:
    assert deployed_key("blog") != deployed_key("jpblog")


def test_deployment_that_cannot_be_remembered_is_told() -> None:
    machines = RecordedMachines().fails("v2/keys", 22, "curl: (22) The requested URL returned error: 500")

    with pytest.raises(CommandFailed, match="error: 500"):
        Contents(machines).remember("blog", Deployed("0123456789abcdef", "f00"))


def test_deployment_is_remembered_by_etcd_on_the_entry_point() -> None:
    machines = RecordedMachines().on("v2/keys", KNOWN)

    Contents(machines).remember("blog", Deployed("0123456789abcdef", "f00"))

    ((name, command),) = machines.asked
    assert name == machines.entry_point
    # --fail: without it, curl takes every answer of etcd's for success
    assert " --fail -X PUT " in command and f"v2/keys{deployed_key('blog')} " in command
    assert command.endswith(" --data-urlencode 'value=0123456789abcdef f00'")
