"""Standing clusters: those that a run made and did not remove."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from harness.drivers.terraform import Outputs
from harness.errors import Misconfigured
from harness.runs.run import runs_folder
from harness.runs.workplace import OUTPUTS, SHELL_STATE
from harness.setup.cache import CLUSTERS
from harness.text import did_you_mean


def standing(root: Path) -> list[str]:
    """Ids of the runs whose cluster may stand, in their order: kept, left by a killed one, just being made."""
    made = (file.parent for file in runs_folder(root).glob(f"*/{SHELL_STATE}"))
    return sorted(folder.name for folder in made if not (folder / OUTPUTS).exists())


def remember(cache: Path, folder: Path) -> None:
    """Notes that the cluster of a run folder stands on what is in the cache, whichever checkout made it."""
    noted = cache / CLUSTERS
    noted.mkdir(exist_ok=True)
    for link in noted.iterdir():
        if not (link / SHELL_STATE).exists():
            link.unlink(missing_ok=True)
    (noted / folder.name).symlink_to(folder.resolve())


def standing_on(cache: Path) -> list[str]:
    """Run folders, of any checkout, whose cluster may stand on what is in the cache: its registry is one of them."""
    links = sorted((cache / CLUSTERS).glob("*"))
    return [str(link.resolve()) for link in links if (link / SHELL_STATE).exists()]


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
