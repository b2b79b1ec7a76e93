"""How far the runbook has come: what is intended of the cluster by now."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from harness import files
from harness.drivers.cluster import Cluster
from harness.drivers.shell import OperatorShell
from harness.drivers.terraform import target_data
from harness.drivers.units import read_units
from harness.errors import Misconfigured
from harness.runs.workplace import HANDED_OVER
from harness.seams.process import Runner
from harness.snapshot.data import Intended
from harness.snapshot.intended import intended
from harness.snapshot.look import Looker
from harness.snapshot.outside import REGISTRY


class Progress:
    """By the lines that were `typed` in this run. On a cluster that this run did not build all of it is done."""

    def __init__(self, typed: Collection[str], *, builds: bool) -> None:
        self._typed = typed
        self._builds = builds

    def _did(self, *beginnings: str) -> bool:
        return not self._builds or any(line.startswith(beginnings) for line in self._typed)

    def intended(self, cluster: Cluster, folder: Path) -> Intended:
        """What is intended now of this cluster, with the operator's working folder."""
        outputs = cluster.outputs
        units = (
            read_units(folder / "units", folder / "units/app") if self._did("fleetctl load", "fleetctl start") else []
        )
        return intended(
            outputs,
            folder,
            cluster.machines.names,
            units,
            started=self._did("fleetctl start"),
            deployed=[site for site in outputs.sites if self._did(f"./bin/deploy-blog {site} ")],
        )


# Of a target's command that may not read what it asks for, and prints the line that gives the right (sysexits.h)
NOT_PERMITTED = 77
# In a workplace: touched when all of the cluster was well
GREEN = "last-green"


def last_green(workplace: Path) -> float:
    """When all of the cluster was last well (seconds since the epoch); 0 where it never was."""
    file = workplace / GREEN
    return file.stat().st_mtime if file.exists() else 0.0


def looker_of(
    cluster: Cluster,
    progress: Progress,
    operator: OperatorShell,
    process: Runner,
    run_id: str | None,
    plan: Callable[[], Iterable[str]] | None = None,
) -> Looker:
    """What looks at the cluster that run `run_id` made (None: of another's nobody knows which of the kernel's alarms
    are its machines'), as an operator has it in front of them."""
    target = operator.cwd / "infra" / operator.env["TARGET"]
    command = target_data(target).get("kernel_alarms") if run_id else None

    def alarms(since: float) -> list[str]:
        argv = [word.format(run_id=run_id, since=int(since)) for word in command or ()]
        answer = process.run(argv, within=10, ok=(0, NOT_PERMITTED))
        if answer.status == NOT_PERMITTED:
            raise Misconfigured(answer.stderr.strip())
        return answer.stdout.splitlines()

    intended = progress.intended(cluster, operator.cwd)
    return Looker(cluster, intended, _backing_services(operator, target), plan, alarms if command else None)


def _backing_services(operator: OperatorShell, target: Path) -> dict[str, str]:
    """What the cluster was made with, and is looked at from here: name -> URL."""
    file = target / HANDED_OVER
    given = files.read_object(file) if file.exists() else {}
    found = {"discovery service": operator.env.get("DISCOVERY_SERVICE", "")}
    if given.get("image_registry"):
        found[REGISTRY] = f"http://{given['image_registry']}/v2/"
    return {name: url for name, url in found.items() if url}
