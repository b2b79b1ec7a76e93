"""What a check must leave as it was: taken before and after it, and compared by the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from harness.drivers.etcd import Etcd
from harness.drivers.machines import Machines
from harness.drivers.terraform import Terraform
from harness.errors import HarnessError
from harness.record.log import SILENT

# The kernel's boot, and when the first process started: machine-containers share their kernel
BOOT = "cat /proc/sys/kernel/random/boot_id; cut -d' ' -f22 /proc/1/stat"
# What is to stay as it is -> the key that it is below; fleet's is hidden from the listing of all
KEYS = {"etcd's lasting keys": "/", "fleet's units and placements": "/_coreos.com/fleet"}


def fingerprint(machines: Machines, answering: Iterable[str], terraform: Terraform | None) -> dict[str, str]:
    """Name of a thing -> what it is now: each machine's boot, etcd's lasting keys, fleet's units, Terraform's serial.

    Machines, fleet and etcd renew keys with a time to live all the time; those without one change only when somebody
    changes something. What does not answer is said to be silent.
    """
    asked = set(answering)  # a silent one would be waited for
    boots = machines.on_all(lambda name: _boot(machines, name) if name in asked else SILENT)
    found = {f"boot of {name}": boot for name, boot in boots.items()}
    found |= {what: _lasting(Etcd(machines), key) for what, key in KEYS.items()}
    if terraform is not None and terraform.has_state():
        found["Terraform's serial"] = str(terraform.serial())
    return found


def _boot(machines: Machines, name: str) -> str:
    try:
        return machines.run(name, BOOT).rstrip()
    except HarnessError:
        return SILENT


def _lasting(etcd: Etcd, key: str) -> str:
    """`12 keys, the newest of index 345`"""
    try:
        node = etcd.get(key)
        if node is None:
            return SILENT
        indexes = list(_indexes(node))
    except (HarnessError, KeyError, TypeError, ValueError):
        return SILENT
    return f"{len(indexes)} keys, the newest of index {max(indexes, default=0)}"


def _indexes(node: dict[str, Any]) -> Iterator[int]:
    if "ttl" in node:
        return
    if not node.get("dir"):
        yield int(node["modifiedIndex"])
    for below in node.get("nodes") or ():
        yield from _indexes(below)
