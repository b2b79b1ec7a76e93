"""Contents: the files that lie on the machines under /home/core, helper files and deployed releases."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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

    def releases(self, site: str, machine: str) -> tuple[str, set[str]]:
        """The version that is current on a machine ("" for none), and those that lie there whole."""
        asked = f"cd /home/core/{site} && readlink current; ls releases 2>/dev/null || true"
        names = self._machines.run(machine, asked).split()
        current = next((it.removeprefix("releases/") for it in names if it.startswith("releases/")), "")
        return current, {it for it in names if "/" not in it and not it.endswith(".partial")}

    def deployed_last(self, site: str) -> Deployed:
        """What was deployed last of a site, as the cluster itself remembers it (in etcd). Raises PlatformWrong where
        nothing was, or etcd does not say (NotAnswering, AnswerNotUnderstood)."""
        node = self._etcd.get(deployed_key(site))
        deployed = _read(node)
        if deployed is None:
            raise PlatformWrong(
                f"the cluster remembers no deployment of {site}",
                expected="a version and a digest",
                seen=str((node or {}).get("value", "no key")),
                paste=f"./bin/deploy-blog {site} sites/{site}",
            )
        return deployed

    def remembered(self, site: str) -> Deployed | None:
        """The same, as a majority of etcd's members has it at this moment; None where nothing was deployed. Raises
        NotAnswering where there is no majority."""
        return _read(self._etcd.get(deployed_key(site), quorum=True))

    def remember(self, site: str, deployed: Deployed) -> None:
        """Makes this the one that was deployed last. Raises CommandFailed; etcd may take it all the same."""
        self._etcd.put(deployed_key(site), _text(deployed))

    def take_back(self, site: str, deployed: Deployed, before: Deployed | None) -> None:
        """Makes `before` (None: nothing) the one that was deployed last. Raises CommandFailed where that is not
        `deployed` any more."""
        if before is None:
            self._etcd.delete(deployed_key(site), instead_of=_text(deployed))
        else:
            self._etcd.put(deployed_key(site), _text(before), instead_of=_text(deployed))


def _text(deployed: Deployed) -> str:
    return f"{deployed.version} {deployed.digest}"


def _read(node: Mapping[str, Any] | None) -> Deployed | None:
    """From a key of etcd; None where it says nothing of a deployment."""
    words = str((node or {}).get("value", "")).split()
    return Deployed(*words) if len(words) == 2 else None
