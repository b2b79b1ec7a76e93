"""The verdict: what a run proves, in one screen and one exit status. A pure function of run.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness import runbook
from harness.errors import ExitStatus

HEADLINES = {
    ExitStatus.VERIFIED: "Verified: the platform is as the runbook says",
    ExitStatus.PLATFORM_WRONG: "The platform is wrong",
    ExitStatus.INTERRUPTED: "Interrupted: the platform was not judged",
    ExitStatus.INTERNAL_ERROR: "Internal error: the harness is at fault, the platform was not judged",
    ExitStatus.MISCONFIGURED: "Wrong usage or configuration",
    ExitStatus.NOTHING_VERIFIED: "Nothing was verified",
    ExitStatus.ENVIRONMENT_FAILED: "The environment failed, so the platform was not judged",
}
# Layers from the ground up, and the one that a feature's steps look at first
LAYERS = ("config", "toolchain", "provision", "bootstrap", "schedule", "unit", "discovery", "content", "entry")
LAYER_OF_TAG = {
    "variables": "config",
    "discovery": "config",
    "infrastructure": "provision",
    "entry_point": "bootstrap",
    "load": "schedule",
    "start": "unit",
    "contents": "content",
    "site": "entry",
    "prerequisites": "content",
}


@dataclass(frozen=True)
class Fault:
    """What is wrong, where, and the command that shows it again."""

    status: ExitStatus
    title: str
    line: str
    layer: str
    expected: str
    seen: str
    where: str
    paste: str


@dataclass(frozen=True)
class Verdict:
    """The exit status, its headline, and the first fault where there is one."""

    status: ExitStatus
    headline: str
    faults: tuple[Fault, ...]
    counts: dict[str, int]


def judge(run: dict[str, Any]) -> Verdict:
    """The first fault in time decides, for what comes later may follow from it; an interruption comes before all."""
    counts: dict[str, int] = {}
    for scenario in run["scenarios"]:
        counts[scenario["outcome"]] = counts.get(scenario["outcome"], 0) + 1
    faults = tuple(_faults(run))
    status = _status(run, faults, counts)
    return Verdict(status, HEADLINES[status], faults, counts)


def _status(run: dict[str, Any], faults: tuple[Fault, ...], counts: dict[str, int]) -> ExitStatus:
    if any(stage["outcome"] == "interrupted" for stage in run["stages"]):
        return ExitStatus.INTERRUPTED
    if faults:
        if faults[0].status is ExitStatus.PLATFORM_WRONG and (run["diagnosis"] or {}).get("layer") == "environment":
            return ExitStatus.ENVIRONMENT_FAILED
        return faults[0].status
    if not counts.get("passed"):
        return ExitStatus.NOTHING_VERIFIED
    return ExitStatus.VERIFIED


def _faults(run: dict[str, Any]) -> list[Fault]:
    found: list[tuple[float, Fault]] = []
    for stage in run["stages"]:
        if stage["outcome"] == "failed":
            found.append((stage["ended"] or 0.0, _of_stage(stage)))
    for scenario in run["scenarios"]:
        if scenario["outcome"] in ("failed", "error", "interrupted"):
            found.append((scenario["ended"] or run["last_event"], _of_scenario(scenario, run["diagnosis"])))
        elif scenario["outcome"] == "not_run" and scenario["reason"] in ("", "not reached") and _looked(run):
            found.append((run["last_event"], _unexplained(scenario)))
    faults = [fault for _, fault in sorted(found, key=lambda pair: pair[0])]
    # a scenario that was left out for a reason may have typed commands of its own
    whole = bool(run["scenarios"]) and all(scenario["outcome"] == "passed" for scenario in run["scenarios"])
    typed = [command["line"] for command in run["commands"] if command["typed"]]
    drifted = runbook.drift(run["readme"], typed, whole=whole) if run["scenarios"] and not run["selection"] else ""
    if drifted:
        faults.append(
            _plain("README, features and what was executed differ", "config", "the README's commands", drifted)
        )
    faults += [_of_leak(leak) for leak in run["leaks"]]
    return faults


def _looked(run: dict[str, Any]) -> bool:
    """Whether the runbook's stage ended by itself: before, what was not reached is explained by what ended the run."""
    return any(stage["stage"] == "runbook" and stage["outcome"] == "passed" for stage in run["stages"])


def _plain(
    title: str, layer: str, expected: str, seen: str, status: ExitStatus = ExitStatus.PLATFORM_WRONG, line: str = ""
) -> Fault:
    return Fault(status, title, line, layer, expected, seen, "", "")


def _of_stage(stage: dict[str, Any]) -> Fault:
    layer = {"setup": "toolchain", "ground": "toolchain"}.get(stage["stage"], "")
    status = ExitStatus(stage.get("status") or ExitStatus.INTERNAL_ERROR)
    return _plain(f"stage {stage['stage']} failed", layer, "", stage["error"] or "no reason given", status)


def _of_scenario(scenario: dict[str, Any], diagnosis: dict[str, Any] | None) -> Fault:
    step = next((step for step in scenario["steps"] if step["outcome"] in ("failed", "interrupted")), None)
    error = (step or {}).get("error") or scenario.get("error") or {}
    layer = next((LAYER_OF_TAG[tag] for tag in scenario["tags"] if tag in LAYER_OF_TAG), "")
    if (
        diagnosis
        and diagnosis.get("layer") in LAYERS
        and LAYERS.index(diagnosis["layer"]) < LAYERS.index(layer or "entry")
    ):
        layer = diagnosis["layer"]
    line = f"{scenario['feature']}:{scenario['line']}: Scenario: {scenario['title']}"
    if step:
        line = f"{scenario['feature']}:{step['line']}: {step['keyword']} {step['text']}"
    return Fault(
        status=ExitStatus(error.get("status") or ExitStatus.INTERNAL_ERROR),
        title=scenario["title"],
        line=line,
        layer=layer,
        expected=error.get("expected", ""),
        seen=error.get("seen") or error.get("message") or scenario["reason"],
        where=error.get("where", ""),
        paste=error.get("paste", ""),
    )


def _unexplained(scenario: dict[str, Any]) -> Fault:
    line = f"{scenario['feature']}:{scenario['line']}: Scenario: {scenario['title']}"
    return _plain(scenario["title"], "", "run, or left out for a reason", "not run", ExitStatus.INTERNAL_ERROR, line)


def _of_leak(leak: dict[str, Any]) -> Fault:
    seen = f"{leak['what']} {leak['name']}, " + ("now removed" if leak["removed"] else "and it could not be removed")
    return _plain(
        "the teardown left something behind", "", "nothing of the run left", seen, ExitStatus.ENVIRONMENT_FAILED
    )


def screen(run: dict[str, Any], verdict: Verdict, width: int = 100) -> str:
    """The verdict as plain text for a terminal: one screen."""
    counted = ", ".join(f"{number} {outcome.replace('_', ' ')}" for outcome, number in sorted(verdict.counts.items()))
    lines = ["", f"{verdict.headline}  (exit status {int(verdict.status)})"]
    if counted:
        lines.append(f"  scenarios  {counted}")
    for fault in verdict.faults[:3]:
        rows = [
            ("fault", fault.title),
            ("line", fault.line),
            ("layer", fault.layer),
            ("expected", fault.expected),
            ("seen", fault.seen),
            ("where", fault.where),
            ("paste", fault.paste),
        ]
        lines.append("")
        lines += [f"  {name:9}  {_cut(text, width - 13)}" for name, text in rows if text]
    if len(verdict.faults) > 3:
        lines.append(f"\n  and {len(verdict.faults) - 3} more faults: see the report")
    diagnosis = run["diagnosis"] or {"findings": []}
    for finding in diagnosis["findings"][:4]:
        lines.append(f"  {finding['layer']:9}  {_cut(finding['machine'] + ': ' + finding['finding'], width - 13)}")
    lines += ["", f"  report     {run['folder']}/report.html", ""]
    return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width * 3 else line[: width * 3 - 1] + "…"
