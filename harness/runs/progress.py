"""How far the runbook has come: what is intended of the cluster by now."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from harness.drivers.cluster import Cluster
from harness.drivers.shell import OperatorShell
from harness.drivers.units import read_units
from harness.snapshot.data import Intended
from harness.snapshot.intended import intended


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


def backing_services(operator: OperatorShell) -> dict[str, str]:
    """What the cluster was made with, and is looked at from here: name -> URL."""
    file = operator.cwd / "infra" / operator.env["TARGET"] / "run.auto.tfvars.json"
    given = json.loads(file.read_text()) if file.exists() else {}
    found = {"discovery service": operator.env.get("DISCOVERY_SERVICE", "")}
    if given.get("image_registry"):
        found["image registry"] = f"http://{given['image_registry']}/v2/"
    return {name: url for name, url in found.items() if url}
