"""A deployment that is under way: `deploy-blog`, of an operator who may be killed meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.drivers.contents import Contents
from harness.drivers.machines import Machines
from harness.drivers.shell import OperatorShell
from harness.seams.process import Result, Runner

# Its process group is its own: what is killed is deploy-blog alone
BEGIN = 'echo $$ > "$0"; exec ./bin/deploy-blog "$1" "sites/$1"'
# Seconds that it may take, where a machine is lost under it
LIMIT = 150.0


@dataclass(frozen=True)
class Reached:
    """How far a deployment came: the machines that hold its release, those that serve it, and whether etcd knows it."""

    unpacked: int
    known: bool
    switched: int


class DeploymentUnderWay:
    """Runs `./bin/deploy-blog SITE sites/SITE` in the operator's folder, beside the caller."""

    def __init__(self, process: Runner, shell: OperatorShell, machines: Machines, site: str, pid: Path) -> None:
        self._process, self._machines, self._site, self._pid = process, machines, site, pid
        self._contents = Contents(machines)
        self._before = {name: self._contents.releases(site, name)[1] for name in machines.names}
        self._pool = ThreadPoolExecutor(1)
        argv = ["bash", "-c", BEGIN, str(pid), site]
        self._ending = self._pool.submit(process.run, argv, cwd=shell.cwd, env=shell.env, within=LIMIT, ok=None)

    def reached(self) -> Reached:
        now = self._machines.on_all(lambda name: self._contents.releases(self._site, name))
        new = {name: releases - self._before[name] for name, (_, releases) in now.items()}
        known = self._contents.deployed_last(self._site).version
        return Reached(
            unpacked=sum(len(versions) for versions in new.values()),
            known=any(known in versions for versions in new.values()),
            switched=sum(current in new[name] for name, (current, _) in now.items()),
        )

    def ended(self) -> Result | None:
        """How it ended; None while it runs."""
        return self._ending.result() if self._ending.done() else None

    def kill(self) -> Result:
        """Kills it (SIGKILL), where it still runs; how it ended."""
        if not self._ending.done():
            self._process.run(["bash", "-c", f"kill -KILL -{self._pid.read_text().strip()}"], within=10, ok=None)
        result = self._ending.result()
        self._pool.shutdown()
        return result
