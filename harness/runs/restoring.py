"""Gives fleet its units again as their files say, where a scenario that changed them did not come to its end."""

from __future__ import annotations

from pathlib import Path

from harness.drivers.fleetctl import Fleetctl
from harness.errors import HarnessError
from harness.record.log import Recorder
from harness.rules.judging import judge
from harness.snapshot.data import Snapshot

# What says that fleet does not have a unit as it is to have it
OF_FLEET = ("unit-is-held", "unit-is-as-written", "unit-is-wanted")


def restore(
    look: Snapshot, fleetctl: Fleetctl, folder: Path, recorder: Recorder, before: Snapshot | None = None
) -> None:
    """Has fleet forget the units that no file of the operator's `folder` names and that it did not have `before` the
    scenario, and gives it again those that it lost, was told to stop, or has with another text. Where nothing says what
    it had before, it forgets none. Where that fails the record says so, and what follows finds it."""
    if look.fleet is None or not look.intended.started:
        return
    had = look.fleet.units if before is None or before.fleet is None else before.fleet.units
    strange = sorted(look.fleet.units.keys() - look.intended.units.keys() - had.keys())
    changed = {finding.subject.name for finding in judge([look]).of(OF_FLEET).all}
    files = [path for path in sorted((folder / "units").rglob("*.service")) if path.name in changed]
    try:
        if strange:
            recorder.emit("note", text=f"fleet is to forget {', '.join(strange)}")
            fleetctl.destroy(*strange)
        if files:
            recorder.emit("note", text=f"fleet is given {', '.join(sorted(changed))} again")
            fleetctl.start(*(str(path.relative_to(folder)) for path in files))
    except HarnessError as failed:
        recorder.emit("note", text=f"the units are not as they were: {failed}")
