"""Contents: the files that lie on the machines under /home/core, helper files and deployed releases."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from harness.drivers.etcd import Etcd
from harness.drivers.machines import Machines
from harness.errors import PlatformWrong

# Digest and path of each file below the working folder, links followed
DIGESTS = "find -L . -type f -exec sha256sum {} + | LC_ALL=C sort -k2"


@dataclass(frozen=True)
class Deployed:
    """A release: its version, and one digest (SHA-256, hexadecimal) of all its files with their paths."""

    version: str
    digest: str


def release_digest(files: Mapping[str, bytes]) -> str:
    """The digest of a release (path relative to it -> contents), as a machine makes it of its own files."""
    lines = [f"{hashlib.sha256(files[path]).hexdigest()}  ./{path}\n" for path in sorted(files, key=os.fsencode)]
    return hashlib.sha256(b"".join(map(os.fsencode, lines))).hexdigest()


def deployed_key(site: str) -> str:
    """The key of etcd where the cluster remembers which version of a site was deployed last."""
    return f"/platform/deployed/{site}"


class Contents:
    """What the machines hold."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._etcd = Etcd(machines)

    def file_digests(self, site: str, machine: str) -> dict[str, str]:
        """Path -> SHA-256 in hexadecimal, of the files of the release that is current on a machine; empty where none
        is."""
        listed = self._machines.run(machine, f"cd /home/core/{site}/current 2>/dev/null && {DIGESTS} || true")
        return {
            path.removeprefix("./"): digest
            for digest, path in (line.split("  ", 1) for line in listed.split("\n") if line)
        }

    def deployed_last(self, site: str) -> Deployed:
        """What was deployed last of a site, as the cluster itself remembers it (in etcd). Raises PlatformWrong where
        nothing was, or etcd does not say (NotAnswering, AnswerNotUnderstood)."""
        node = self._etcd.get(deployed_key(site))
        try:
            version, digest = str((node or {})["value"]).split()
            return Deployed(version, digest)
        except (ValueError, KeyError):
            raise PlatformWrong(
                f"the cluster remembers no deployment of {site}",
                expected="a version and a digest",
                seen=str((node or {}).get("value", "no key")),
                paste=f"./bin/deploy-blog {site} sites/{site}",
            ) from None

    def remember(self, site: str, deployed: Deployed) -> None:
        """Makes this the one that was deployed last."""
        self._etcd.put(deployed_key(site), f"{deployed.version} {deployed.digest}")
