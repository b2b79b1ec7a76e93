"""What the nightly prints to mend a fault is typed, and has to mend it: soon, and without a reader who notices."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from harness.drivers.cluster import Cluster
from harness.drivers.traffic import Traffic, request_to
from harness.errors import ExitStatus, HarnessError
from harness.rules.repairs import is_line
from harness.runs.faults import Seeding
from harness.seams.patience import patience
from harness.seams.wait import Waiter
from harness.text import one_line

# Seconds in which all is green once the lines are typed
MENDED_WITHIN = 60.0
# Each site is asked through each entry point all the while: so often a second, and at least so many times before
RATE, ASKED_BEFORE = 2, 4


@dataclass(frozen=True)
class Mending:
    """The lines that were printed and typed, after how many seconds all was green, and what was wrong with them."""

    lines: tuple[str, ...]
    seconds: float
    wrong: str = ""


def lines_of(document: dict[str, Any]) -> tuple[str, ...]:
    """What a nightly says is to be typed, of all its causes; nothing where for one of them a section of the README says
    what to do."""
    lines = tuple(cause["finding"].get("repair", "") for cause in document.get("causes", ()))
    return lines if all(map(is_line, lines)) else ()


def mend(seeding: Seeding, lines: tuple[str, ...], status: Callable[[], int]) -> Mending:
    """Types lines in the operator's shell, and looks until all is green; `status` is the nightly's. No request may fail
    meanwhile, but of a site and an entry point where one failed before."""
    with _asked(seeding.cluster) as streams:
        failed_before = {name for name, stream in streams.items() if stream.tally().failed}
        for stream in streams.values():
            stream.changed("a repair")
        began = time.monotonic()
        wrong = _typed(seeding, lines)
        green, ends = False, began + MENDED_WITHIN * patience()
        while not wrong and not green and time.monotonic() < ends:
            green = status() == ExitStatus.VERIFIED
        seconds = time.monotonic() - began
        failed = {name: tally for name, stream in streams.items() if (tally := stream.settled()).failed}
    if not wrong and not green:
        wrong = f"not green within {MENDED_WITHIN * patience():g} s"
    if new := sorted(failed.keys() - failed_before):
        told = ", ".join(f"{failed[name].failed} of {failed[name].made} to {name}" for name in new)
        wrong = "; ".join(filter(None, (wrong, f"requests failed that had not failed before: {told}")))
    return Mending(lines, seconds, wrong)


def _typed(seeding: Seeding, lines: Sequence[str]) -> str:
    """Why a line could not be typed, or how it failed; "" where all went well."""
    try:
        for line in lines:
            result = seeding.shell.type(line, within=MENDED_WITHIN, ok=None)
            if result.status:
                return f"`{line}` ended with status {result.status}: {one_line(result.stderr)[-200:]}"
    except HarnessError as failed:
        return str(failed)
    return ""


@contextmanager
def _asked(cluster: Cluster) -> Iterator[dict[str, Traffic]]:
    """Requests to each site through each entry point, while this lasts."""
    streams: dict[str, Traffic] = {}
    with contextlib.ExitStack() as every:
        for site, domain in cluster.outputs.sites.items():
            for name in cluster.outputs.entry_points:
                ask = request_to(site, domain, partial(str, cluster.machines.addresses[name]))
                stream = streams[f"{site} through {name}"] = Traffic(site, ask, "", RATE, cluster.recorder)
                stream.start()
                every.callback(stream.stop)
        Waiter(cluster.recorder).until(
            "each entry point was asked for each site",
            lambda: min(stream.tally().made for stream in streams.values()),
            lambda made: made >= ASKED_BEFORE,
            within=30,
        )
        yield streams
