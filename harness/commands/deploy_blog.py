"""`deploy-blog SITE DIR`: brings the contents of a blog to every machine, and back when they do not answer.

On each machine /home/core/SITE/ holds releases/VERSION/ and `current`, a link to the release that is served. A release
is unpacked beside the others on every machine; then etcd is told that it was deployed. That is the moment at which a
deployment happens: machines switch to what etcd says, when they are told to, and else by themselves (fetch-contents,
every 5 seconds), by one rename(2). So whoever is interrupted leaves machines that come to one version: before that
moment the old one, after it the new one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import secrets
import shlex
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.commands.operators import cluster_here, run
from harness.drivers.contents import Contents, Deployed, release_digest
from harness.drivers.machines import Machines
from harness.drivers.site import Site
from harness.errors import CommandFailed, Misconfigured, PlatformWrong
from harness.seams.ssh import MachineUnreachable
from harness.seams.wait import Waiter
from harness.text import one_line

VERSION_FILE = "version.txt"
KEPT_RELEASES = 3
# Folders of version control: whole histories, and what was never meant to be read
REPOSITORIES = (".git", ".hg", ".svn")
# Seconds for the site to tell the new version, and for etcd to have a majority
ANSWER_LIMIT = ETCD_LIMIT = 10.0

# $1 site, $2 version. What an interrupted deployment left goes first, but for what somebody fills just now.
UNPACK = """set -eu
cd /home/core/$1
mkdir -p releases
for left in releases/*.partial; do [ ! -d "$left" ] || flock --nonblock "$left" rm -rf "$left" || :; done
mkdir releases/$2.partial
exec 9<releases/$2.partial
flock 9
tar -xz --no-same-owner -C releases/$2.partial
mv releases/$2.partial releases/$2
touch releases/$2"""
# $1 site: this machine serves what etcd says
SWITCH = 'exec /usr/local/sbin/fetch-contents --now "$1"'
# $1 site, $2 version. Where etcd knows of none again, nothing is served.
DISCARD = """set -eu
cd /home/core/$1 2>/dev/null || exit 0
exec 9</home/core
flock 9
[ "$(readlink current)" != "releases/$2" ] || rm -f current
rm -rf releases/$2 releases/$2.partial"""
# $1 site, $2 number of releases to keep; the current one always stays
PRUNE = """set -eu
cd /home/core/$1/releases
current=$(basename "$(readlink ../current)")
ls -1t | grep -v '\\.partial$' | grep -vxF "$current" | tail -n +"$2" | xargs -r rm -rf --"""


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

    def __post_init__(self) -> None:
        self._contents = Contents(self.machines)

    def bring(self, archive: bytes) -> None:
        """Unpacks everywhere, has etcd remember it, lets every machine switch, and asks the site for the new version.

        When a machine cannot unpack, or etcd has no majority within 10 seconds, nothing has changed; when the site does
        not tell the new version within 10 seconds, the version before is remembered again and every machine goes back
        to it. PlatformWrong says why. A machine that is lost meanwhile switches when it is back.
        """
        release = Deployed(self.version, digest_of(archive))
        try:
            self.machines.on_all(lambda name: self._on(name, UNPACK, self.version, data=archive))
            before = self._remembered()
        except BaseException as failed:
            self._tell(failed, self._discard())
            raise
        try:
            self._contents.remember(self.site.name, release)
            self._switch()
            self.waiter.until(
                f'site "{self.site.name}" tells version {self.version}',
                self._told,
                lambda served_version: served_version == self.version,
                within=ANSWER_LIMIT,
            )
        except BaseException as failed:
            # whatever ended it, an interruption and a fault of ours too
            self._tell(failed, self._go_back(release, before))
            raise
        # on a machine that is lost by now the next deployment does it
        self._silent(lambda name: self._on(name, PRUNE, str(KEPT_RELEASES)))

    def _remembered(self) -> Deployed | None:
        """What was deployed before. An etcd that elects a leader just now has its time."""
        return self.waiter.until(
            "etcd has a majority, and says what was deployed last",
            lambda: self._contents.remembered(self.site.name),
            lambda _: True,
            within=ETCD_LIMIT,
        )

    def _switch(self) -> None:
        """Every machine serves what etcd says now; one that does not answer is not waited for."""
        for name, why in self._silent(lambda name: self._on(name, SWITCH)).items():
            print(f"deploy-blog: {name} switches when it is back: {one_line(why)}", file=sys.stderr)

    def _silent(self, ask: Callable[[str], object]) -> dict[str, str]:
        """Asks every machine; those that do not answer, and why."""

        def answers(name: str) -> str:
            try:
                ask(name)
            except MachineUnreachable as silent:
                return str(silent)
            return ""

        return {name: why for name, why in self.machines.on_all(answers).items() if why}

    def _told(self) -> str:
        try:
            return self.site.version()
        except PlatformWrong as failed:
            return str(failed)

    def _go_back(self, release: Deployed, before: Deployed | None) -> str:
        """To the version before, unless another deployment came after this one. What is served then, in a few words."""
        try:
            with contextlib.suppress(CommandFailed):  # etcd has another one by now, or never had this one
                self._contents.take_back(self.site.name, release, before)
            served = self._contents.remembered(self.site.name)
        except PlatformWrong as unknown:
            return f"every machine serves what etcd says when it answers again ({unknown})"
        if served == release:
            return "and is served all the same, for etcd did not take it back"
        return self._discard(switch=True)

    def _discard(self, *, switch: bool = False) -> str:
        """Removes the release from every machine that answers, which goes back before. What is served then."""

        def discard(name: str) -> str:
            try:
                if switch:
                    self._on(name, SWITCH)
                self._on(name, DISCARD, self.version)
            except PlatformWrong as failed:
                return str(failed)
            return ""

        failures = {name: failed for name, failed in self.machines.on_all(discard).items() if failed}
        for name, failed in failures.items():
            print(f"deploy-blog: {name} still holds version {self.version}: {one_line(failed)}", file=sys.stderr)
        some = f", by {', '.join(failures)} as soon as that can" if failures and switch else ""
        return f"the version before is served{some}"

    def _tell(self, failed: BaseException, served: str) -> None:
        """Raises what failed with what is served now, where that can be said."""
        if isinstance(failed, PlatformWrong):
            raise PlatformWrong(
                f"version {self.version} of {self.site.name} was not deployed, {served}: {failed}",
                expected=f"version {self.version} at http://{self.site.domain}/{VERSION_FILE}",
                seen=str(failed),
            ) from failed
        if isinstance(failed, KeyboardInterrupt):
            raise KeyboardInterrupt(served) from failed

    def _on(self, name: str, script: str, *arguments: str, data: bytes = b"") -> str:
        words = ("sh", "-c", script, "deploy", self.site.name, *arguments)
        return self.machines.run(name, shlex.join(words), data=data)


def main(argv: Sequence[str]) -> int:
    """The command line. Prints the new version; exit status as in harness.errors."""
    parser = argparse.ArgumentParser(
        prog="deploy-blog", description="Brings the contents of a blog to every machine of the cluster."
    )
    parser.add_argument("site", metavar="SITE", help="blog or jpblog")
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder with the site's contents")
    return run(parser, argv, lambda arguments: deploy(arguments.site, arguments.folder))


def deploy(site: str, folder: Path) -> str:
    """Deploys to the cluster that Terraform's outputs describe ($TARGET, default local); gives the new version."""
    version = secrets.token_hex(8)
    if not re.fullmatch(r"[a-z][a-z0-9-]*", site):
        raise Misconfigured(f"{site!r} is no site's name: give blog or jpblog")
    archive = release_archive(folder, version)
    with cluster_here("deploy-blog") as (cluster, recorder):
        if site not in cluster.sites:
            raise Misconfigured(f"there is no site {site}: sites are {', '.join(sorted(cluster.sites))}")
        Deployment(cluster.sites[site], cluster.machines, Waiter(recorder), version).bring(archive)
    return version
