"""Contents: the files that lie on the machines under /home/core, helper files and deployed releases."""

from __future__ import annotations

import hashlib
import json
import urllib.parse
from pathlib import Path

from harness.errors import PlatformWrong
from harness.etcd import CURL
from harness.machines import Machines
from harness.site import Site

# Digest and path of each file below the working folder, links followed
DIGESTS = "find -L . -type f -exec sha256sum {} + | sort -k2"


def deployed_key(site: str) -> str:
    """Where the cluster remembers which version of a site was deployed last: a key of etcd's, as a machine asks for
    it."""
    return f"http://127.0.0.1:2379/v2/keys/platform/deployed/{site}"


class Contents:
    """What the machines hold."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    def _digests(self, machine: str, folder: str) -> dict[str, str]:
        """Path relative to `folder` -> SHA-256 in hexadecimal; empty when there is no such folder."""
        listed = self._machines.run(machine, f"cd {folder} 2>/dev/null && {DIGESTS} || true")
        return {
            path.removeprefix("./"): digest for digest, path in (line.split("  ", 1) for line in listed.splitlines())
        }

    def missing(self, source: Path, place: str) -> list[str]:
        """One line for each file of `source` that a machine does not hold, byte for byte, under `place`."""
        wanted = {
            path.relative_to(source).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in source.rglob("*")
            if path.is_file()
        }
        held = self._machines.everywhere(lambda name: self._digests(name, place))
        lines = [
            f"{machine}: {path} {'differs' if path in held[machine] else 'is missing'}"
            for machine in held
            for path, digest in wanted.items()
            if held[machine].get(path) != digest
        ]
        return lines if wanted else [f"{source} holds no files to look for"]

    def versions(self, site: str) -> dict[str, str]:
        """Machine -> the version of the release that is current there; "none" where nothing was deployed."""
        ask = f"cat /home/core/{site}/current/version.txt 2>/dev/null || echo none"
        return self._machines.everywhere(lambda name: self._machines.run(name, ask).strip())

    def deployed_last(self, site: str) -> str:
        """The version that the last deployment of a site was told, as the cluster itself remembers it (in etcd)."""
        answer = self._machines.run(self._machines.entry_point, f"{CURL} {deployed_key(site)}", ok=range(256))
        try:
            return str(json.loads(answer)["node"]["value"])
        except (ValueError, KeyError, TypeError):
            raise PlatformWrong(
                f"the cluster remembers no deployment of {site}",
                expected="a version",
                seen=answer.strip() or "no answer",
                paste=f"./bin/deploy-blog {site} sites/{site}",
            ) from None

    def remember(self, site: str, version: str) -> None:
        """Makes this version the one that was deployed last."""
        put = f"{CURL} --fail -X PUT {deployed_key(site)} --data-urlencode value={version}"
        self._machines.run(self._machines.entry_point, put)

    def differences(self, deployed: str, site: Site) -> list[str]:
        """One line for each deployed file that `site` serves otherwise; what the entry point's machine holds counts."""
        digests = self._digests(self._machines.entry_point, f"/home/core/{deployed}/current")
        wrong = [
            path
            for path, digest in digests.items()
            if hashlib.sha256(site.fetch("/" + urllib.parse.quote(path)).body).hexdigest() != digest
        ]
        return wrong if digests else [f"nothing is deployed as {deployed}"]
