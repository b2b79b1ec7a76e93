"""`etcd-backup save FILE` and `etcd-backup restore FILE`: what of the cluster's etcd cannot be had again.

That is what fleet is to run, and where, and which contents were deployed: a JSON object, key -> value. What has a time
to live is left out, for its owners tell it again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import files
from harness.commands.operators import cluster_here, run
from harness.drivers.etcd import Etcd
from harness.errors import CommandFailed, Misconfigured, PlatformWrong

KEYS = ("/_coreos.com/fleet/job", "/_coreos.com/fleet/unit", "/platform")


def saved(etcd: Etcd) -> dict[str, str]:
    """Key -> value of all that counts. Raises PlatformWrong when etcd has no quorum that could tell it."""
    try:
        trees = [etcd.get(key, quorum=True) for key in KEYS]
    except CommandFailed as silent:
        raise PlatformWrong(
            "etcd has no quorum: bring its members back first (Recovery)",
            expected="an answer of more than half of its members",
            seen=str(silent),
        ) from silent
    return dict(sorted(pair for tree in trees if tree for pair in _values(tree)))


def _values(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "ttl" in node:
        return
    if not node.get("dir"):
        yield node["key"], node.get("value", "")
    for below in node.get("nodes", ()):
        yield from _values(below)


def restore(etcd: Etcd, backup: Mapping[str, str]) -> int:
    """Puts a backup into an etcd that knows nothing yet, or a part of it; how many keys were missing there.

    Raises Misconfigured, before anything is changed, when the cluster has something else.
    """
    known = saved(etcd)
    others = sorted(key for key, value in known.items() if backup.get(key) != value)
    if others:
        raise Misconfigured(
            f"the cluster knows what the backup does not, such as {others[0]}: restore into an empty one"
        )
    missing = [key for key in backup if key not in known]
    # a unit's text and its job before what is wanted of it
    missing.sort(key=lambda key: (not key.startswith(KEYS[1]), not key.endswith("/object"), key))
    etcd.put_all({key: backup[key] for key in missing})
    return len(missing)


def read(path: Path) -> dict[str, str]:
    """A backup from its file. Raises Misconfigured for what is none."""
    text = files.read(path, if_missing="give the file that `etcd-backup save` wrote")
    try:
        backup = json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise Misconfigured(f"{path} is no backup: it is no JSON ({wrong})") from wrong
    if not isinstance(backup, dict) or not backup:
        raise Misconfigured(f"{path} is no backup: it has no keys")
    for key, value in backup.items():
        if not isinstance(value, str) or not key.startswith(tuple(f"{kept}/" for kept in KEYS)):
            raise Misconfigured(f"{path} is no backup: {key} is no key of one, or its value no text")
    return backup


def main(argv: Sequence[str]) -> int:
    """The command line. Prints how many keys there were; exit status as in harness.errors."""
    parser = argparse.ArgumentParser(
        prog="etcd-backup", description="Saves what the cluster's etcd knows of units and deployments, or restores it."
    )
    parser.add_argument("do", choices=("save", "restore"), help="save: from the cluster; restore: into an empty etcd")
    parser.add_argument("file", metavar="FILE", type=Path, help="the backup: a JSON object, key -> value")
    return run(parser, argv, lambda arguments: _done(arguments.do, arguments.file))


def _done(do: str, file: Path) -> str:
    """Does it; a line that says what."""
    backup = read(file) if do == "restore" else {}
    with cluster_here("etcd-backup") as (cluster, _):
        if do == "restore":
            return f"{restore(cluster.etcd, backup)} of {len(backup)} keys restored"
        found = saved(cluster.etcd)
    if not found:
        raise PlatformWrong("etcd knows of no unit and no deployment: there is nothing to save")
    files.write(file, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return f"{len(found)} keys saved"
