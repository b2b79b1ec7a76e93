"""What a run took beside what it may take, so that no figure grows unseen. Pure functions of run.json.

A figure over its bound is said on the screen and changes no verdict: the machine may have been busy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Item = dict[str, Any]

# Where the bounds were found: other targets have other machines
BOUND_ON = "local"
# Seconds from `terraform apply` to a cluster that answers over SSH, with a healthy etcd and all machines in fleet, for
# three machines, and for each further one
BRING_UP, BRING_UP_EACH = 3.0, 0.5
# Seconds of all scenarios that take nothing away on purpose
RUNBOOK = 120.0


@dataclass(frozen=True)
class Measure:
    """What was measured, and its bound; both in seconds."""

    what: str
    seconds: float
    bound: float

    def __str__(self) -> str:
        return f"{self.what} {self.seconds:.1f} s (the harness's own bound: {self.bound:g} s)"


def measured(run: Item) -> list[Measure]:
    """The figures that this run gives; none of a scenario that did not pass, or of a target that has no bounds."""
    if run["target"] != BOUND_ON:
        return []
    passed = {scenario["id"]: scenario for scenario in run["scenarios"] if scenario["outcome"] == "passed"}
    found = []
    applied = next((command for command in run["commands"] if applies(command)), None)
    if applied is not None and applied.get("scenario") in passed:
        asked = {remote["machine"] for remote in run["remotes"] if remote.get("scenario") == applied["scenario"]}
        bound = BRING_UP + BRING_UP_EACH * max(len(asked) - 3, 0)
        # its steps: the look behind a scenario that changed something comes when all of that has been seen
        took = sum(float(step["seconds"] or 0) for step in passed[applied["scenario"]]["steps"])
        found.append(Measure("from apply to fleet-ready", took, bound))
        gentle = [scenario for scenario in passed.values() if "destructive" not in scenario["tags"]]
        found.append(Measure("scenarios that break nothing", sum(float(it["seconds"]) for it in gentle), RUNBOOK))
    return found


def over(run: Item) -> list[Measure]:
    """Those that are over their bound."""
    return [measure for measure in measured(run) if measure.seconds > measure.bound]


def applies(command: Item) -> bool:
    """Whether a command that was typed makes what a plan says."""
    line = command.get("line") or ""
    return line.startswith("terraform ") and " apply " in line
