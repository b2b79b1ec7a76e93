"""Standing clusters: those that a run made and did not remove."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from harness.drivers.terraform import Outputs
from harness.errors import Misconfigured
from harness.runs.run import runs_folder
from harness.runs.workplace import IN_USE, OUTPUTS, SHELL_STATE
from harness.setup.cache import note_cluster, notes_of_clusters
from harness.text import did_you_mean


def standing(root: Path) -> list[str]:
    """Ids of the runs whose cluster may stand, in their order: kept, left by a killed one, just being made."""
    made = (file.parent for file in runs_folder(root).glob(f"*/{SHELL_STATE}"))
    return sorted(folder.name for folder in made if not (folder / OUTPUTS).exists())


def remember(cache: Path, folder: Path) -> None:
    """Notes that the cluster of a run folder stands on what is in the cache, whichever checkout made it."""
    for note in notes_of_clusters(cache):
        if not _needs(note.resolve()):
            note.unlink(missing_ok=True)
    note_cluster(cache, folder)


def standing_on(cache: Path) -> list[str]:
    """Run folders, of any checkout, whose cluster may stand on what is in the cache (its registry is one of them), or
    is just being made."""
    # an older version, given the same PLATFORM_CACHE, noted it one folder higher
    noted = {note.resolve() for place in (cache, cache.parent) for note in notes_of_clusters(place)}
    return sorted(str(folder) for folder in noted if _needs(folder))


def _needs(folder: Path) -> bool:
    return (folder / SHELL_STATE).exists() or under_way(folder)


def under_way(folder: Path) -> bool:
    """Whether a command makes, changes or removes what a run folder is about, at this moment."""
    try:
        with (folder / IN_USE).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it never was; or is somebody's whose folders are closed
        return False
    return False


def chosen(root: Path, named: str | None, *, gone_too: bool = False) -> Path:
    """The folder of the run that is named (by its id or its folder), else of the one whose cluster stands.

    Raises Misconfigured when there is none, when there are several and none is named, and when that of the named one is
    gone (unless `gone_too`: something of it may be left).
    """
    known = standing(root)
    stand = f"clusters of these runs stand: {', '.join(known)}" if known else "no cluster stands"
    if named:
        run_id = Path(named).name
        if not run_id or not (runs_folder(root) / run_id / "events.jsonl").is_file():
            raise Misconfigured(f"there is no run {run_id}: {did_you_mean(run_id, known)}{stand}")
        if run_id not in known and not gone_too:
            raise Misconfigured(f"the cluster of run {run_id} is gone: {stand}")
        return runs_folder(root) / run_id
    if not known:
        raise Misconfigured(
            "no cluster stands here: build one with `make up`, or keep one with `make acceptance KEEP=1`"
        )
    if len(known) > 1:
        raise Misconfigured(f"several clusters stand, choose one with RUN=ID: {', '.join(known)}")
    return runs_folder(root) / known[0]


def how_to_reach(folder: Path, outputs: Outputs, environment: Mapping[str, str]) -> str:
    """What a person pastes to reach a kept cluster and to remove it, as lines for a terminal."""
    run_id, near = folder.name, os.path.relpath(folder)
    rows = [
        ("cluster", f"run {run_id}, {len(outputs.machines)} machines on target {environment.get('TARGET', '')}"),
        ("ssh", f"ssh -F {near}/ssh_config {next(iter(outputs.machines), '')}"),
        ("fleetctl", f"(. {near}/env && fleetctl list-units)"),
    ]
    for name, domain in sorted(outputs.sites.items()):
        rows.append((name, f"curl --resolve {domain}:80:{outputs.entry_point} http://{domain}/"))
    names = " ".join(sorted(outputs.sites.values()))
    rows += [
        ("browser", f"/etc/hosts: {outputs.entry_point} {names}"),
        ("shell", f"bin/platform shell --run {run_id}"),
        ("check", f"bin/platform check --run {run_id}"),
        ("remove", f"bin/platform down --run {run_id}"),
    ]
    return "\n".join(f"  {name:<9}  {line}" for name, line in rows) + "\n"
