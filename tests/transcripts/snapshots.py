"""A recorded snapshot of a cluster of three machines where nothing was wrong, and ways to change it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness.snapshot.data import FleetMachine, Machine, Snapshot, decode

FOLDER = Path(__file__).parent
COLLECTED = (FOLDER / "collected.txt").read_text()
# when the first part of COLLECTED was printed, by the machine's clock
COLLECTED_AT = 1795665509.546
REMOVED = object()


@functools.cache
def green() -> Snapshot:
    return decode((FOLDER / "green.json").read_bytes())


def change(thing: Any, path: str, value: Any) -> Any:
    """A copy of a snapshot, or a part of one, where what is at `path` is another: names of fields and keys, with dots
    between them. `value` may be a function of what is there; REMOVED takes a key out. A key may be new."""
    if not path:
        return value(thing) if callable(value) else value
    if isinstance(thing, Mapping):
        known = {str(key): key for key in thing}
        # names of units and addresses have dots of their own
        key = max((it for it in known if f"{path}.".startswith(f"{it}.")), key=len, default=path)
        rest = path[len(key) + 1 :]
        if value is REMOVED and not rest:
            assert key in known, f"there is no {key}"
            return {it: thing[it] for it in thing if str(it) != key}
        return {**thing, known.get(key, key): change(thing.get(known.get(key, key)), rest, value)}
    field, _, rest = path.partition(".")
    return msgspec.structs.replace(thing, **{field: change(getattr(thing, field), rest, value)})


def changed(snapshot: Snapshot, changes: Mapping[str, Any]) -> Snapshot:
    """With all of these changes, path -> value."""
    return functools.reduce(lambda now, it: change(now, *it), changes.items(), snapshot)


def without(*items: object) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """What takes items out of a tuple, for `change`."""
    return lambda there: tuple(it for it in there if it not in items)


def silent(snapshot: Snapshot, *names: str, refused: str = "", through: str = "") -> Snapshot:
    """Where these machines do not answer; `through` is the one on the way, which is why."""
    gone = {
        name: Machine(
            asked=snapshot.asked,
            seconds=5.0,
            silent="timed out",
            refused=refused,
            through="" if name == through else through,
        )
        for name in names
    }
    return change(snapshot, "machines", {**snapshot.machines, **gone})


def grown(snapshot: Snapshot, number: int) -> Snapshot:
    """With so many machines, 3 to 200: the others are like coreos-1, and the first five are etcd's members."""
    names = [f"coreos-{index}" for index in range(number)]
    addresses = {name: f"192.0.2.{10 + index}" for index, name in enumerate(names)}
    model = snapshot.machines["coreos-1"]
    machines = dict(snapshot.machines)
    for index, name in enumerate(names[3:], 3):
        role = {"etcd.role": "" if index > 4 else "StateFollower", "etcd.name": name}
        ids = {"machine_id": f"{index:032x}", "host_key": f"ssh-ed25519 {index}", "boot": f"boot {index}"}
        machines[name] = changed(model, role | ids)
    ids_of = {machines[name].machine_id: name for name in names}
    for name in names:
        machines[name] = changed(machines[name], {"etcd.members": tuple(names[:5]), "fleet": tuple(ids_of)})
    assert snapshot.fleet is not None
    return changed(
        snapshot,
        {
            "intended.machines": addresses,
            "machines": machines,
            "fleet.machines": {it: FleetMachine(addresses[name], {"name": name}) for it, name in ids_of.items()},
            "fleet.states": {
                unit: tuple(ids_of) if len(there) > 1 else there for unit, there in snapshot.fleet.states.items()
            },
            "outside.ports": dict.fromkeys(names, (22, 80)),
            "outside.sites": {
                site: dict.fromkeys(names, its["coreos-1"]) for site, its in snapshot.outside.sites.items()
            },
        },
    )


def later(snapshot: Snapshot, seconds: float) -> Snapshot:
    """As it is so many seconds later."""
    return msgspec.structs.replace(snapshot, number=snapshot.number + 1, asked=snapshot.asked + seconds)
