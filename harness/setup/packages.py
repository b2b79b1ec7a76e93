"""System packages of Debian and Ubuntu, and root, who installs them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.errors import Misconfigured
from harness.seams.process import Runner
from harness.setup.limits import exclusive

# Runs a program of a package that was unpacked, with the libraries that were unpacked beside it
UNPACKED = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
libraries=$(echo "$here"/usr/lib/*-linux-gnu/systemd "$here"/usr/lib/*-linux-gnu "$here"/lib/*-linux-gnu | tr ' ' :)
# systemd's own units too: a minimal system has none; where they are depends on the release
units="${{SYSTEMD_UNIT_PATH%:}}:$here/usr/lib/systemd/system:$here/lib/systemd/system:"
SYSTEMD_UNIT_PATH=${{units#:}} LD_LIBRARY_PATH=$libraries exec "$here"/usr/*bin/{name} "$@"
"""
# What a system of another release or distribution may fail for
NEEDS_OF_A_SUITE = "does the package source have it, and this system its keys: debian-archive-keyring, ubuntu-keyring?"


class Packages:
    """The packages of this machine, through apt-get."""

    def __init__(self, process: Runner) -> None:
        self._process = process

    def as_root(self, argv: Sequence[str]) -> list[str]:
        """argv for root, through sudo where needed. Raises Misconfigured when this user cannot become root."""
        self.require_root(shlex.join(argv))
        return list(argv) if os.geteuid() == 0 else ["sudo", "-n", *argv]

    def require_root(self, purpose: str) -> None:
        """Raises Misconfigured when this user cannot become root, who is needed to do what `purpose` says."""
        if os.geteuid() == 0:
            return
        if shutil.which("sudo") and self._process.run(["sudo", "-n", "true"], ok=None).status == 0:
            return
        raise Misconfigured(
            f"root is needed to {purpose}: do that, or run this as root or with sudo that asks no password"
        )

    def install(self, packages: Iterable[str]) -> str:
        """Installs Debian or Ubuntu packages that are missing; "cached" when there are none. Raises Misconfigured where
        that is the person's to do."""
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

    def unpack_program(self, name: str, package: str, folder: Path) -> None:
        """Unpacks a program's package, and those that it stands on and this system lacks, and puts beside them what
        runs it."""
        self.unpack(package, folder)
        plan = ["apt-get", "install", "--simulate", "--no-install-recommends", package]
        # one line for each; what would only be renewed is there
        for below in re.findall(r"^Inst (\S+) \(", self._process.run(plan).stdout, re.MULTILINE):
            if below != package:
                self.unpack(below, folder)
        program = folder / name
        program.write_text(UNPACKED.format(name=name))
        program.chmod(0o755)
