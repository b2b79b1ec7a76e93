"""`platform drill`: breaks a cluster on purpose, one fault at a time, and tells whether the nightly names each, and
whether the lines that it prints mend it."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import files
from harness.drivers.cluster import Cluster, Connections
from harness.errors import ExitStatus, HarnessError, Misconfigured
from harness.runs.acceptance import BUILDING, Acceptance, down
from harness.runs.check import on_cluster
from harness.runs.execution import Execution
from harness.runs.faults import FOR_DRILLS, Fault, Seeded, Seeding, seeding_lock
from harness.runs.interrupts import Interrupts
from harness.runs.mending import Mending, lines_of, mend
from harness.runs.standing import chosen
from harness.seams.process import Runner
from harness.text import clean, took

# Seconds for a cluster to be green again, when a fault is undone
AGAIN = 120.0
NIGHTLY_LIMIT = 180.0


@dataclass(frozen=True)
class Outcome:
    """What the nightly made of a fault: its exit status and seconds, the first cause that it named, how many it named
    beside it, what became of the lines that it printed (None: it printed none), and whether the cluster was green again
    afterwards."""

    fault: str
    layer: str
    expected: str
    status: int
    seconds: float
    within: float
    named: str
    others: tuple[str, ...]
    right: bool
    green_again: bool
    why: str = ""
    mending: Mending | None = None

    @property
    def caught(self) -> bool:
        return self.status not in (ExitStatus.VERIFIED, ExitStatus.INTERNAL_ERROR)

    @property
    def mended(self) -> bool:
        return self.mending is not None and not self.mending.wrong

    @property
    def good(self) -> bool:
        named = self.caught and self.right and self.seconds <= self.within and not self.others
        return named and self.green_again and not self.why and (self.mending is None or self.mended)

    def __str__(self) -> str:
        mark = "✓" if self.good else "✗"
        line = f"{mark} {self.fault:34} {took(self.seconds):>7}  {self.named or 'nothing was named'}"
        remarks = [
            "" if self.caught else "missed",
            "" if self.right else f"not named: {self.expected}",
            "" if self.seconds <= self.within else f"late: {self.within:g} s",
            f"named as well: {', '.join(self.others)}" if self.others else "",
            "" if self.green_again else "not green again",
            self.why,
        ]
        if self.mending:
            remarks += [f"$ {line}" for line in self.mending.lines]
            remarks.append(
                f"not mended: {self.mending.wrong}" if self.mending.wrong else f"mended in {took(self.mending.seconds)}"
            )
        return "\n".join([line, *(f"    {remark}" for remark in remarks if remark)])


def listed(faults: Sequence[Fault]) -> str:
    return "\n".join(f"{fault.layer:12} {fault.name:34} {fault.rule}: {fault.subject}" for fault in faults)


def drill(root: Path, faults: Sequence[Fault], run_id: str | None, *, keep: bool, target: str) -> ExitStatus:
    """Seeds each of these faults, on the cluster of a run that was built for drills, or on a new one.

    Raises Misconfigured for a cluster that was built for something else.
    """
    if run_id is None:
        acceptance = Acceptance(root, target, None, ["drill", "--target", target])
        status = acceptance(BUILDING, keep=True)
        folder = acceptance.run.folder
        if status is not ExitStatus.VERIFIED:
            return status
        (folder / FOR_DRILLS).touch()
    else:
        folder, keep = chosen(root, run_id), True
        if not (folder / FOR_DRILLS).exists():
            raise Misconfigured(f"the cluster of run {folder.name} was not built for drills: leave --run out")
    outcomes: list[Outcome] = []
    with contextlib.ExitStack() as last:
        # also of a drill that is interrupted
        last.callback(lambda: print(score(outcomes), file=sys.stderr) if outcomes else None)
        if not keep:
            last.callback(down, root, folder)
        _drilled(root, folder, faults, outcomes)
    if not outcomes:
        return ExitStatus.NOTHING_VERIFIED
    return ExitStatus.VERIFIED if all(outcome.good for outcome in outcomes) else ExitStatus.PLATFORM_WRONG


def _drilled(root: Path, folder: Path, faults: Sequence[Fault], outcomes: list[Outcome]) -> None:
    """Adds to `outcomes` what the nightly made of each fault."""
    with (
        Interrupts() as interrupts,
        seeding_lock(folder) as alone,
        on_cluster(root, folder, ["drill"]) as execution,
        Connections(execution.run.recorder) as connections,
    ):
        if not alone:
            raise Misconfigured(f"another drill is under way on the cluster of run {folder.name}")
        seeding = _seeding(execution, connections, folder)
        seeding.undo_noted()
        nightly = _nightly_of(root, folder, execution.run.process)
        try:
            with interrupts.allowed():
                for fault in faults:
                    if lacking := seeding.means.lack(fault):
                        print(f"- {fault.name:34} NOT RUN: {lacking}", file=sys.stderr, flush=True)
                        continue
                    outcomes.append(_tried(seeding, fault, nightly))
                    print(clean(str(outcomes[-1])), file=sys.stderr, flush=True)
        finally:
            kept = json.dumps([asdict(outcome) for outcome in outcomes], indent=1)
            files.put(execution.run.folder / "drill.json", kept)


def _seeding(execution: Execution, connections: Connections, folder: Path) -> Seeding:
    outputs = execution.outputs()
    if outputs is None:
        raise Misconfigured(f"the cluster of run {folder.name} is gone")
    cluster = Cluster(lambda: outputs, connections, execution.run.process)
    return Seeding(folder, cluster, execution.workplace.shell, execution.run.process)


Nightly = Callable[[], tuple[dict[str, Any], float]]


def _nightly_of(root: Path, folder: Path, process: Runner) -> Nightly:
    """What a person would type, as a process of its own: what it prints, and the seconds that it took."""
    argv = [str(root / "bin/platform"), "nightly", "--json", "--run", folder.name]

    def nightly() -> tuple[dict[str, Any], float]:
        result = process.run(argv, ok=None, within=NIGHTLY_LIMIT)
        try:
            return dict(json.loads(result.stdout)), result.seconds
        except ValueError:
            return {"status": ExitStatus.INTERNAL_ERROR, "headline": result.stderr[-300:], "causes": []}, result.seconds

    return nightly


def _tried(seeding: Seeding, fault: Fault, nightly: Nightly) -> Outcome:
    seeded, seconds, why, doing = Seeded(fault.name, (), "", fault.subject), 0.0, "", "seeded"
    document: dict[str, Any] = {}
    mending: Mending | None = None
    try:
        with seeding.injected(fault) as seeded:
            doing = "judged"
            document, seconds = nightly()
            if lines := lines_of(document):
                doing = "mended"
                mending = mend(seeding, lines, lambda: _status(nightly))
            doing = "undone"
    except HarnessError as failed:
        why = f"it could not be {doing}: {failed}"
    again, ends = False, time.monotonic() + AGAIN
    try:
        while not again and time.monotonic() < ends:
            again = nightly()[0]["status"] == ExitStatus.VERIFIED
    except HarnessError as failed:
        why = why or str(failed)
    if document.get("status") == ExitStatus.INTERNAL_ERROR:
        why = str(document.get("headline"))
    causes = [cause["finding"] for cause in document.get("causes", ())]
    named = [f"{cause['rule']}: {cause['about']}" for cause in causes]
    expected = f"{fault.rule}: {seeded.subject}"
    return Outcome(
        fault.name,
        fault.layer,
        expected,
        int(document.get("status", ExitStatus.INTERNAL_ERROR)),
        seconds,
        fault.within,
        named[0] if named else "",
        tuple(name for name in named[1:] if name not in fault.others),
        named[:1] == [expected] and document["status"] == fault.status,
        again,
        why,
        mending,
    )


def _status(nightly: Nightly) -> int:
    """Of a nightly that may have no end."""
    try:
        return int(nightly()[0]["status"])
    except HarnessError:
        return ExitStatus.INTERNAL_ERROR


def score(outcomes: Sequence[Outcome]) -> str:
    """By layer: how many faults were caught, named rightly, named late, missed, and named with others beside;
    of those for which lines were printed, how many these mended."""
    titles = ("layer", "faults", "caught", "named", "late", "missed", "others", "slowest", "mended")
    rows: list[tuple[str, ...]] = [titles]
    layers = list(dict.fromkeys(outcome.layer for outcome in outcomes))
    for layer in [*layers, "all"]:
        these = [outcome for outcome in outcomes if layer in (outcome.layer, "all")]
        counts = (
            len(these),
            sum(outcome.caught for outcome in these),
            sum(outcome.right for outcome in these),
            sum(outcome.seconds > outcome.within for outcome in these),
            sum(not outcome.caught for outcome in these),
            sum(bool(outcome.others) for outcome in these),
        )
        slowest = max((outcome.seconds for outcome in these), default=0.0)
        lines = [outcome.mended for outcome in these if outcome.mending]
        rows.append((layer, *map(str, counts), took(slowest), f"{sum(lines)} of {len(lines)}"))
    table = (f"  {name:<12}" + "".join(f"{cell:>10}" for cell in cells) for name, *cells in rows)
    return "\n" + "\n".join(table)
