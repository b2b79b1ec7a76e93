"""`deploy-blog SITE DIR`: brings the contents of a blog to every machine, and back when they do not answer.

On each machine /home/core/SITE/ holds releases/VERSION/ and `current`, a link to the release that is served. A release
is unpacked beside the others and becomes current by one rename(2), so a reader gets the old contents or the new, never
half of them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import secrets
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.drivers.cluster import Cluster, Connections
from harness.drivers.contents import Contents, Deployed, release_digest
from harness.drivers.machines import Machines
from harness.drivers.site import Site
from harness.drivers.terraform import Terraform
from harness.errors import ExitStatus, HarnessError, Misconfigured, PlatformWrong
from harness.record.log import Recorder
from harness.seams.process import Processes
from harness.seams.wait import Waiter

VERSION_FILE = "version.txt"
KEPT_RELEASES = 3
# Folders of version control: whole histories, and what was never meant to be read
REPOSITORIES = (".git", ".hg", ".svn")
ANSWER_LIMIT = 10.0

# $1 site, $2 version. The release before is printed, so that it can be gone back to.
UNPACK = """set -eu
cd /home/core/$1
mkdir -p releases/$2.partial
tar -xz --no-same-owner -C releases/$2.partial
mv releases/$2.partial releases/$2
touch releases/$2
readlink current || true"""
# $1 site, $2 release to make current ("" for none)
SWITCH = """set -eu
cd /home/core/$1
if [ -n "$2" ]; then ln -sfn "$2" current.new && mv -T current.new current; else rm -f current; fi"""
DISCARD = "rm -rf /home/core/$1/releases/$2 /home/core/$1/releases/$2.partial"
# $1 site, $2 number of releases to keep; the current one always stays
PRUNE = """set -eu
cd /home/core/$1/releases
current=$(basename "$(readlink ../current)")
ls -1t | grep -vxF "$current" | tail -n +"$2" | xargs -r rm -rf --"""


def release_archive(folder: Path, version: str) -> bytes:
    """The contents of a folder and their version file, as a gzipped tar archive.

    Raises Misconfigured when the folder is no site: missing, without index.html, with a file of the version's name; or
    when something in it cannot be served as it lies there, see `_refuse`.
    """
    if not folder.is_dir():
        raise Misconfigured(f"{folder} is no folder: give the folder that holds the site's contents")
    if not (folder / "index.html").is_file():
        raise Misconfigured(f"{folder} has no index.html: it does not hold a site's contents")
    if (folder / VERSION_FILE).exists():
        raise Misconfigured(f"{folder}/{VERSION_FILE} is in the way: the deployment writes its own")
    root = folder.resolve()
    for path in folder.rglob("*"):
        _refuse(path, folder, root)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz", dereference=True) as tar:
        tar.add(folder, arcname=".", filter=_readable)
        version_line = f"{version}\n".encode()
        entry = tarfile.TarInfo(VERSION_FILE)
        entry.size = len(version_line)
        tar.addfile(entry, io.BytesIO(version_line))
    return archive.getvalue()


def _refuse(path: Path, folder: Path, root: Path) -> None:
    """Raises Misconfigured for what cannot be served as it lies there, or must not be: names that machines cannot
    compare, repositories, links that lead out, nowhere or to folders, what is no file, what cannot be read."""
    shown = ascii(str(path)).strip("'")
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise Misconfigured(f"{shown} has a name that is no UTF-8: rename it") from None
    # sha256sum, by which the machines compare what they hold, writes such names in another way
    if re.search(r"[\\\x00-\x1f\x7f]", path.name):
        raise Misconfigured(f"{shown} has a backslash or a control character in its name: rename it")
    if path.name in REPOSITORIES:
        raise Misconfigured(
            f"{path} would be served to everybody: give the folder of what was built, not the repository"
        )
    with contextlib.suppress(RuntimeError):  # of a circle of links, up to Python 3.12
        if not path.resolve().is_relative_to(root):
            raise Misconfigured(f"{path} leads out of {folder}: contents must hold all they serve")
    if not path.exists():
        raise Misconfigured(f"{path} is a link that leads nowhere, or round in a circle")
    if path.is_symlink() and path.is_dir():
        raise Misconfigured(f"{path} is a link to a folder: contents hold each file at its own place")
    if not path.is_file() and not path.is_dir():
        raise Misconfigured(f"{path} is no file: a socket, a pipe or a device cannot be served")
    if not os.access(path, os.R_OK):
        raise Misconfigured(f"{path} cannot be read")


def digest_of(archive: bytes) -> str:
    """The digest of a release, from its archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {entry.name.removeprefix("./"): tar.extractfile(entry) for entry in tar if entry.isfile()}
        return release_digest({path: file.read() for path, file in files.items() if file is not None})


def _readable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """The web server reads as another user; owners and times of the operator's machine mean nothing there."""
    entry.mode = 0o755 if entry.isdir() else 0o644
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


@dataclass
class Deployment:
    """One deployment of one site to all machines."""

    site: Site
    machines: Machines
    waiter: Waiter
    version: str

    def bring(self, archive: bytes) -> None:
        """Unpacks everywhere, switches everywhere, and asks the site for the new version.

        When a machine fails, or the site does not tell the new version within 10 seconds, every machine goes back to
        the release it had, and PlatformWrong says why.
        """
        before: dict[str, str] = {}
        try:
            before = self.machines.on_all(lambda name: self._on(name, UNPACK, self.version, data=archive).strip())
            self.machines.on_all(lambda name: self._on(name, SWITCH, f"releases/{self.version}"))
            self.waiter.until(
                f'site "{self.site.name}" tells version {self.version}',
                self._told,
                lambda served_version: served_version == self.version,
                within=ANSWER_LIMIT,
            )
            Contents(self.machines).remember(self.site.name, Deployed(self.version, digest_of(archive)))
        except BaseException as failed:
            # whatever ended it, an interruption and a fault of ours too
            served = self._go_back(before)
            if isinstance(failed, PlatformWrong):
                raise PlatformWrong(
                    f"version {self.version} of {self.site.name} was not deployed, {served}: {failed}",
                    expected=f"version {self.version} at http://{self.site.domain}/{VERSION_FILE}",
                    seen=str(failed),
                ) from failed
            if isinstance(failed, KeyboardInterrupt):
                raise KeyboardInterrupt(served) from failed
            raise
        self.machines.on_all(lambda name: self._on(name, PRUNE, str(KEPT_RELEASES)))

    def _told(self) -> str:
        try:
            return self.site.version()
        except PlatformWrong as failed:
            return str(failed)

    def _go_back(self, before: dict[str, str]) -> str:
        """On every machine that answers; one that does not answer now has not switched, or serves nobody. What is
        served then, in a few words."""

        def back(name: str) -> str:
            try:
                if name in before:
                    self._on(name, SWITCH, before[name])
                self._on(name, DISCARD, self.version)
            except PlatformWrong as failed:
                return str(failed)
            return ""

        failures = {name: failed for name, failed in self.machines.on_all(back).items() if failed}
        for name, failed in failures.items():
            print(f"deploy-blog: {name} could not go back: {failed}", file=sys.stderr)
        some = f", but for {', '.join(failures)}, which may serve either" if failures else ""
        return f"the version before is served{some}"

    def _on(self, name: str, script: str, argument: str, data: bytes = b"") -> str:
        command = self.machines[name].backend.get_command("sh -c %s deploy %s %s", script, self.site.name, argument)
        return self.machines.run(name, command, data=data)


def main(argv: Sequence[str]) -> int:
    """The command line. Prints the new version; exit status as in harness.errors."""
    parser = argparse.ArgumentParser(
        prog="deploy-blog", description="Brings the contents of a blog to every machine of the cluster."
    )
    parser.add_argument("site", metavar="SITE", help="blog or jpblog")
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder with the site's contents")
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as wrong:
        return ExitStatus.MISCONFIGURED if wrong.code else ExitStatus.VERIFIED
    try:
        version = deploy(arguments.site, arguments.folder)
    except HarnessError as failed:
        print(f"deploy-blog: {failed}", file=sys.stderr)
        return failed.status
    except KeyboardInterrupt as interrupted:
        print("; ".join(["deploy-blog: interrupted", *map(str, interrupted.args)]), file=sys.stderr)
        return ExitStatus.INTERRUPTED
    print(version)
    return ExitStatus.VERIFIED


def deploy(site: str, folder: Path) -> str:
    """Deploys to the cluster that Terraform's outputs describe ($TARGET, default local); gives the new version."""
    version = secrets.token_hex(8)
    target = Path("infra") / os.environ.get("TARGET", "local")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", site):
        raise Misconfigured(f"{site!r} is no site's name: give blog or jpblog")
    archive = release_archive(folder, version)
    if not target.is_dir():
        raise Misconfigured(f"there is no {target} here: run this in the folder of the runbook")
    with tempfile.TemporaryDirectory(prefix="deploy-blog-") as scratch:
        recorder = Recorder(Path(scratch) / "events.jsonl")
        process = Processes(recorder)
        outputs = Terraform(process, target, os.environ).outputs()
        if site not in outputs.sites:
            raise Misconfigured(f"there is no site {site}: sites are {', '.join(sorted(outputs.sites))}")
        with Connections(recorder) as connections:
            cluster = Cluster(lambda: outputs, connections, process)
            Deployment(cluster.sites[site], cluster.machines, Waiter(recorder), version).bring(archive)
    return version
