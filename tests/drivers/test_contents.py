"""Contents: what a machine holds, and what the cluster remembers; the commands run for real, in folders."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.drivers.contents import Contents, Deployed, deployed_key, release_digest
from harness.errors import CommandFailed, ExitStatus, PlatformWrong
from harness.seams.ssh import MachineUnreachable
from harness.seams.wait import NotAnswering
from tests.transcripts.machines import FolderMachines, RecordedMachines

ROOT = Path(__file__).resolve().parent.parent.parent


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def machines(tmp_path: Path) -> FolderMachines:
    return FolderMachines(tmp_path / "machines")


@pytest.fixture
def contents(machines: FolderMachines) -> Contents:
    return Contents(machines)


# -- releases --------------------------------------------------------------------------------------------------------


def deploy(machines: FolderMachines, name: str, version: str, files: dict[str, bytes] | None = None) -> None:
    site = machines.core(name) / "blog"
    write(site / "releases" / version, {"version.txt": f"{version}\n".encode(), **(files or {})})
    (site / "current").unlink(missing_ok=True)
    (site / "current").symlink_to(f"releases/{version}")


def test_files_of_the_current_release_have_their_digests(contents: Contents, machines: FolderMachines) -> None:
    deploy(machines, "coreos-0", "fedcba9876543210", {"old.html": b"old"})
    deploy(machines, "coreos-0", "0123456789abcdef", {"a b/c.txt": b"c", "empty": b""})
    deploy(machines, "coreos-1", "0123456789abcdef", {"a b/c.txt": b"other"})
    (machines.core("coreos-0") / "blog/current/link").symlink_to("empty")  # followed: its bytes are served too

    held = contents.file_digests("blog", "coreos-0")

    files = {"version.txt": b"0123456789abcdef\n", "a b/c.txt": b"c", "empty": b"", "link": b""}
    assert held == {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    assert contents.file_digests("blog", "coreos-1")["a b/c.txt"] == hashlib.sha256(b"other").hexdigest()


def test_site_that_was_never_deployed_has_no_files(contents: Contents) -> None:
    assert contents.file_digests("blog", "coreos-0") == {}


def test_machine_that_cannot_be_asked_is_told(contents: Contents, machines: FolderMachines) -> None:
    def fail(name: str, command: str) -> None:
        raise CommandFailed([command], 255, "", "gone", where=name)

    machines.before = fail

    with pytest.raises(CommandFailed, match="gone"):
        contents.file_digests("blog", "coreos-0")


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


def digest_that_is_looked_at(folder: Path, **environment: str) -> str:
    """What a look at a machine that holds this release tells of it."""
    script = (ROOT / "harness/snapshot/collect.sh").read_text()
    (limited,) = re.findall(r"(?m)^limited\(\) .*$", script)
    (function,) = re.findall(r"(?ms)^contents\(\) \{.*?^\}$", script)
    here = function.replace("/home/core/$site/current", "$site")
    return shell(f"sites=.\n{limited}\n{here}\ncontents", folder, **environment).split()[-1]


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

    assert digest_that_is_looked_at(folder) == expected
    assert digest_of_first_boot(folder) == expected


@pytest.mark.parametrize("language", ["C", "C.UTF-8", "de_DE.UTF-8"])
def test_digest_does_not_depend_on_the_language(tmp_path: Path, language: str) -> None:
    files = odd_release(tmp_path / "release", ODD)

    assert digest_that_is_looked_at(tmp_path / "release", LC_ALL=language, LANG=language) == release_digest(files)


def test_machines_agree_on_the_digest_of_names_that_no_line_holds(tmp_path: Path) -> None:
    odd_release(tmp_path / "release", [*ODD, *UNTOLD])

    assert digest_of_first_boot(tmp_path / "release") == digest_that_is_looked_at(tmp_path / "release")


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
