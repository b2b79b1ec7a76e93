"""What a check must leave as it was: taken before and after it, and compared by the verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from harness.drivers.etcd import CURL
from harness.drivers.machines import Machines
from harness.drivers.terraform import Terraform
from harness.errors import HarnessError
from harness.record.log import SILENT

# The kernel's boot, and when the first process started: machine-containers share their kernel
BOOT = "cat /proc/sys/kernel/random/boot_id; cut -d' ' -f22 /proc/1/stat"
# Keys whose names begin with an underscore are hidden from the listing of their parent, so fleet's are asked for
KEYS = f"{CURL} 'http://127.0.0.1:2379/v2/keys/?recursive=true'; echo; {CURL} 'http://127.0.0.1:2379/v2/keys/_coreos.com/fleet?recursive=true'"


def fingerprint(machines: Machines, terraform: Terraform | None) -> dict[str, str]:
    """Name of a thing -> what it is now: each machine's boot, etcd's lasting keys, fleet's units, Terraform's serial.

    Machines, fleet and etcd renew keys with a time to live all the time; those without one change only when somebody
    changes something. What does not answer is said to be silent.
    """
    found = {
        f"boot of {name}": boot for name, boot in machines.on_all(lambda name: _told(machines, name, BOOT)).items()
    }
    found |= _keys(_told(machines, "", KEYS))
    if terraform is not None and terraform.has_state():
        found["Terraform's serial"] = str(terraform.serial())
    return found


def _told(machines: Machines, name: str, ask: str) -> str:
    """What a machine (by default the entry point) answers."""
    try:
        return machines.run(name or machines.entry_point, ask).rstrip()
    except HarnessError:
        return SILENT


def _keys(answer: str) -> dict[str, str]:
    own, _, fleets = answer.partition("\n")
    return {
        "etcd's lasting keys": _lasting(own),
        "fleet's units and placements": _lasting(fleets),
    }


def _lasting(listing: str) -> str:
    """`12 keys, the newest of index 345`"""
    try:
        indexes = list(_indexes(json.loads(listing)["node"]))
    except (ValueError, KeyError, TypeError):
        return SILENT
    return f"{len(indexes)} keys, the newest of index {max(indexes, default=0)}"


def _indexes(node: dict[str, Any]) -> Iterator[int]:
    if "ttl" in node:
        return
    if not node.get("dir"):
        yield int(node["modifiedIndex"])
    for below in node.get("nodes") or ():
        yield from _indexes(below)
