"""What is intended of a cluster: from the operator's files, and the target's outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path

from harness.drivers.etcd import MEMBERS_AT_MOST
from harness.drivers.terraform import Outputs
from harness.drivers.units import UnitFile
from harness.model.unit_file import written
from harness.snapshot.data import Intended, IntendedUnit

# Open to the outside are SSH and HTTP. Those that are looked at to be closed: rsync, etcd's (2379, 2380, and those of
# before 2.0: 4001, 7001), fleet's and Docker's own range for published ports
OPEN_PORTS = (22, 80)
LISTENING = (22, 873, 2379)
CLOSED_PORTS = (873, 2379, 2380, 4001, 7001, 49153)
# Folder of the units' helper files, which lie below /home/core
HELPERS = "container"
# Settings of sshd that are the platform's: all others are the distribution's
SSHD = "infra/image/files/etc/ssh/sshd_config.d/platform.conf"
LOOKED_AT = ("permitrootlogin", "passwordauthentication", "kbdinteractiveauthentication", "allowusers",
             "allowagentforwarding", "maxsessions")  # fmt: skip


def intended(
    outputs: Outputs,
    folder: Path,
    machines: Collection[str],
    units: Iterable[UnitFile],
    *,
    started: bool,
    deployed: Iterable[str],
) -> Intended:
    """What `outputs` and the operator's `folder` say, of these `machines` (those that a run took away itself are not
    among them), `units` (those that were loaded), and `deployed` sites."""
    helpers = folder / HELPERS
    return Intended(
        machines={name: outputs.machines[name] for name in machines},
        entry_point=outputs.entry_point,
        entry_points=tuple(name for name in outputs.entry_points if name in machines),
        sites=outputs.sites,
        name_server=outputs.name_server,
        members_at_most=MEMBERS_AT_MOST,
        units={
            unit.name: IntendedUnit(options=unit.options, text=hashlib.sha256(written(unit.options)).hexdigest())
            for unit in units
        },
        started=started,
        deployed=tuple(deployed),
        helpers={
            path.relative_to(helpers).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(helpers.rglob("*"))
            if path.is_file()
        },
        sshd=_sshd((folder / SSHD).read_text()),
        listening=LISTENING,
        ports=OPEN_PORTS,
        closed=CLOSED_PORTS,
    )


def _sshd(configuration: str) -> dict[str, str]:
    rows = (line.split(None, 1) for line in configuration.splitlines() if line and not line.startswith("#"))
    return {name.lower(): value.strip() for name, value in rows if name.lower() in LOOKED_AT}
