"""The verdict: what a run proves, in one screen and one exit status. A pure function of run.json.

Screen, report and JUnit XML take the faults of a run from here, so that they cannot disagree.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.errors import ExitStatus
from harness.record.log import NOTHING_CHOSEN, TIME_LIMITS
from harness.reports import runbook
from harness.reports.measures import over
from harness.text import SLOW, clean, cut, one_line

Item = dict[str, Any]

HEADLINES = {
    ExitStatus.VERIFIED: "Verified: the platform is as the runbook says",
    ExitStatus.PLATFORM_WRONG: "The platform is wrong",
    ExitStatus.INTERRUPTED: "Interrupted: the platform was not judged",
    ExitStatus.INTERNAL_ERROR: "Internal error: the harness is at fault, the platform was not judged",
    ExitStatus.MISCONFIGURED: "Wrong usage or configuration",
    ExitStatus.NOTHING_VERIFIED: "Nothing was verified",
    ExitStatus.ENVIRONMENT_FAILED: "The environment failed, so the platform was not judged",
}
NO_END = "Interrupted: the record has no end"
NOT_CLEAN = "Verified, but the run could not be removed cleanly"
IN_PART = "Verified: what was run of the runbook holds"
NOTHING_WRONG = "Nothing is wrong, as far as it can be seen"
# The stage that says: nothing was to be proven, only seen
DIAGNOSIS = "diagnosis"
# In its run folder, what can be sent to somebody
ARCHIVE = "diagnosis.tar.gz"
# Layers from the ground up, and the one that a feature's steps look at first
LAYERS = (
    "environment",
    "config",
    "toolchain",
    "provision",
    "bootstrap",
    "schedule",
    "unit",
    "discovery",
    "content",
    "entry",
)
# Where no cause is the platform's: what it stands on, what the person at the keyboard has in hand
STATUS_OF_LAYER = {"environment": ExitStatus.ENVIRONMENT_FAILED, "config": ExitStatus.MISCONFIGURED}
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
    "services": "discovery",
    "machines": "bootstrap",
    "recovery": "bootstrap",
    "troubleshooting": "bootstrap",
    "whole": "bootstrap",
}
# Causes, faults that no cause explains, and lines of the journal that the screen shows; the report has all.
SHOWN_CAUSES, SHOWN_FAULTS, SHOWN_LINES = 3, 3, 3
# Characters of what is seen of a consequence
SHOWN_OF_SEEN = 60
# The kind of error that says: rules do not hold. Which, and why, the causes say.
RULE_BROKEN = "RuleBroken"


@dataclass(frozen=True)
class Fault:
    """What is wrong, where, and the command that shows it again.

    `kind` and `message` are those of the exception, where there was one. A fault belongs to a stage (its name), to a
    scenario (its id) or one of its steps (index), or to the run as a whole.
    """

    status: ExitStatus
    title: str
    line: str = ""
    layer: str = ""
    expected: str = ""
    seen: str = ""
    where: str = ""
    paste: str = ""
    kind: str = ""
    message: str = ""
    stage: str = ""
    scenario: str = ""
    step: int | None = None


@dataclass(frozen=True)
class Verdict:
    """The exit status, its headline, the faults in the order of time, and the causes in their order of `judging`."""

    status: ExitStatus
    headline: str
    faults: tuple[Fault, ...]
    counts: dict[str, int]
    causes: tuple[Item, ...] = ()

    @property
    def unexplained(self) -> tuple[Fault, ...]:
        """The faults that are told by themselves: all but broken rules, which the causes tell."""
        return tuple(fault for fault in self.faults if fault.kind != RULE_BROKEN or not self.causes)


def title(status: int | None) -> str:
    """A recorded exit status in a few words: its headline up to the first colon or comma."""
    if status is None:
        return NO_END
    try:
        return re.split("[:,]", HEADLINES[ExitStatus(status)])[0]
    except ValueError:  # of another version of the harness
        return f"Exit status {status}"


def judge(run: Item) -> Verdict:
    """The first fault in time decides, for what comes later may follow from it; an interruption comes before all."""
    counts = dict(Counter(scenario["outcome"] for scenario in run["scenarios"]))
    faults = (*_faults_in_time(run), *_drift(run), *_changes(run), *map(_of_leak, run["leaks"]))
    diagnosis = any(stage["stage"] == DIAGNOSIS for stage in run["stages"])
    status = _status(run, faults, counts, diagnosis=diagnosis)
    # the platform was judged before the teardown failed
    judged = _whole(run) and status is ExitStatus.ENVIRONMENT_FAILED and not _changes(run)
    in_part = status is ExitStatus.VERIFIED and (run["selection"] or not _whole(run))
    headline = NOT_CLEAN if judged else IN_PART if in_part else HEADLINES[status]
    if diagnosis and status is ExitStatus.VERIFIED:
        headline = NOTHING_WRONG
    if status is ExitStatus.NOTHING_VERIFIED:
        headline += f": {_why_nothing(run)}"
    return Verdict(status, headline, faults, counts, tuple(run["causes"]) if faults or diagnosis else ())


def _why_nothing(run: Item) -> str:
    """Why no scenario was executed: what most of them were left out for, or what chose none."""
    reasons = [str(reason) for reason, _ in Counter(scenario["reason"] for scenario in run["scenarios"]).most_common()]
    if reasons:
        more = len(reasons) - 1
        return reasons[0] + (f" (and {counted_of(more, 'more reason')}: see the report)" if more else "")
    chosen = f"{' '.join(run['selection'])} chooses no scenario" if run["selection"] else "there is no scenario"
    return str(run["facts"].get(NOTHING_CHOSEN, chosen))


def _whole(run: Item) -> bool:
    """Whether all scenarios passed, but for slow ones that nobody chose."""
    reached = [scenario for scenario in run["scenarios"] if scenario["reason"] != SLOW]
    return bool(reached) and all(scenario["outcome"] == "passed" for scenario in reached)


def _status(run: Item, faults: tuple[Fault, ...], counts: dict[str, int], *, diagnosis: bool) -> ExitStatus:
    if any(stage["outcome"] == "interrupted" for stage in run["stages"]):
        return ExitStatus.INTERRUPTED
    kinds = {STATUS_OF_LAYER.get(cause["finding"]["layer"]) for cause in run["causes"]}
    excused = None not in kinds  # no cause is the platform's own
    if faults and faults[0].status is not ExitStatus.PLATFORM_WRONG:
        first = faults[0].status
        return first if excused or first not in STATUS_OF_LAYER.values() else ExitStatus.PLATFORM_WRONG
    if faults or (diagnosis and run["causes"]):
        return (kinds.pop() if len(kinds) == 1 else None) or ExitStatus.PLATFORM_WRONG
    if diagnosis:
        return ExitStatus.VERIFIED
    if not counts.get("passed"):
        return ExitStatus.NOTHING_VERIFIED
    return ExitStatus.VERIFIED


def _faults_in_time(run: Item) -> list[Fault]:
    """Stages and scenarios that did not do what they should, in the order in which they ended."""
    found: list[tuple[float, Fault]] = []
    for stage in run["stages"]:
        if stage["outcome"] == "failed":
            found.append((stage["ended"] or 0.0, _of_stage(stage)))
    for scenario in run["scenarios"]:
        if scenario["outcome"] in ("failed", "error", "interrupted"):
            found.append((scenario["ended"] or run["last_event"], _of_scenario(scenario, run)))
        elif scenario["outcome"] == "not_run" and scenario["reason"] in ("", "not reached") and not _cut_short(run):
            found.append((run["last_event"], _unexplained(scenario)))
    return [fault for _, fault in sorted(found, key=lambda pair: pair[0])]


def _cut_short(run: Item) -> bool:
    """Whether the runbook's stage ended otherwise than by itself: that explains what was not reached."""
    before_teardown = [stage for stage in run["stages"] if stage["stage"] in ("setup", "ground", "runbook")]
    return any(stage["outcome"] != "passed" for stage in before_teardown)


def _drift(run: Item) -> list[Fault]:
    """README, features and executed commands that differ, but for what was left out; of a run on a cluster that stood
    already, and of a selection of one, nobody can tell."""
    stood = run["cluster"] not in (None, run["run_id"]) or (run["cluster"] is None and run["selection"])
    if not run["scenarios"] or stood:
        return []
    typed = [command["line"] for command in run["commands"] if command["typed"]]
    # of a step that failed nobody knows whether its command was typed
    every = [_to_be_typed(run, unless=outcomes) for outcomes in (("not_run",), ("not_run", "failed", "interrupted"))]
    seen = [runbook.drift(wanted, typed, whole=whole) for wanted, whole in every]
    title = "README, features and what was executed differ"
    wrong = ExitStatus.PLATFORM_WRONG
    return [Fault(wrong, title, layer="config", expected="the README's commands", seen=seen[0])] if all(seen) else []


def _to_be_typed(run: Item, unless: Collection[str]) -> tuple[list[str], bool]:
    """The README's commands, without those of steps that ended so, and of scenarios that were left out. And whether
    they are all that had to be typed; where features and README differ, only a run without a gap can tell."""
    outcomes = {scenario["outcome"] for scenario in run["scenarios"]}
    claimed = [
        (found[1], scenario["outcome"] == "not_run" or step["outcome"] in unless)
        for scenario in run["scenarios"]
        for step in scenario["steps"]
        if (found := runbook.TYPED.match(f"{step['keyword']} {step['text']}"))
    ]
    if [line for line, _ in claimed] != run["readme"]:
        return list(run["readme"]), outcomes == {"passed"}
    return [line for line, left_out in claimed if not left_out], outcomes <= {"passed", "not_run"}


def _changes(run: Item) -> list[Fault]:
    """What a run that changes nothing found otherwise at its end: what was judged was not one state."""
    if len(run["fingerprints"]) < 2:
        return []
    before, after = run["fingerprints"][0]["facts"], run["fingerprints"][-1]["facts"]
    return [
        Fault(
            status=ExitStatus.ENVIRONMENT_FAILED,
            title="the cluster was changed while it was checked",
            expected=f"{name}: {before.get(name)}",
            seen=f"{name}: {after.get(name)}",
        )
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _of_stage(stage: Item) -> Fault:
    return Fault(
        status=ExitStatus(stage.get("status") or ExitStatus.INTERNAL_ERROR),
        title=f"stage {stage['stage']} failed",
        layer={"setup": "toolchain", "ground": "toolchain"}.get(stage["stage"], ""),
        seen=stage.get("error") or "no reason given",
        stage=stage["stage"],
    )


def _of_scenario(scenario: Item, run: Item) -> Fault:
    steps = enumerate(scenario["steps"])
    index, step = next(((i, s) for i, s in steps if s["outcome"] in ("failed", "interrupted")), (None, None))
    error = (step or {}).get("error") or scenario.get("error") or {}
    if scenario["outcome"] == "interrupted":
        error = error or _last_wait(run, scenario["id"], index)
    message = error.get("message") or scenario["reason"] or ""
    return Fault(
        status=ExitStatus(error.get("status") or ExitStatus.INTERNAL_ERROR),
        title=scenario["title"],
        line=_line(scenario, step),
        layer=error.get("layer") or _layer(scenario["tags"]),
        expected=error.get("expected", ""),
        seen=error.get("seen") or message,
        where=error.get("where", ""),
        paste=error.get("paste", ""),
        kind=error.get("kind", ""),
        message=message,
        scenario=scenario["id"],
        step=index,
    )


def _unexplained(scenario: Item) -> Fault:
    return Fault(
        status=ExitStatus.INTERNAL_ERROR,
        title=scenario["title"],
        line=_line(scenario, None),
        expected="run, or left out for a reason",
        seen="not run",
        scenario=scenario["id"],
    )


def _of_leak(leak: Item) -> Fault:
    then = "now removed" if leak["removed"] else "and it could not be removed"
    return Fault(
        status=ExitStatus.ENVIRONMENT_FAILED,
        title="the teardown left something behind",
        expected="nothing of the run left",
        seen=f"{leak['what']} {leak['name']}, {then}",
    )


def _line(scenario: Item, step: Item | None) -> str:
    """The Gherkin line: `features/06_start.feature:12: Then every unit is active`."""
    if step is None:
        return f"{scenario['feature']}:{scenario['line']}: Scenario: {scenario['title']}"
    return f"{scenario['feature']}:{step['line']}: {step['keyword']} {step['text']}"


def _layer(tags: list[str]) -> str:
    """The layer that a feature is about; "" when that is not known."""
    return next((LAYER_OF_TAG[tag] for tag in tags if tag in LAYER_OF_TAG), "")


def _last_wait(run: Item, scenario: str, step: int | None) -> dict[str, str]:
    """What a step that was cut off waited for, and what it last saw."""
    waits = [wait for wait in run.get("waits", ()) if (wait.get("scenario"), wait.get("step")) == (scenario, step)]
    seen = waits[-1]["seen"] if waits else ()
    return {"expected": waits[-1]["what"], "seen": clean(seen[-1]["value"])} if seen else {}


def screen(run: Item, verdict: Verdict, width: int = 100) -> str:
    """The verdict as plain text for a terminal: one screen, unless a command to paste is longer than that."""
    counted = ", ".join(f"{number} {outcome.replace('_', ' ')}" for outcome, number in sorted(verdict.counts.items()))
    lines = ["", f"{one_line(verdict.headline)}  (exit status {int(verdict.status)})"]
    if counted:
        slow = sum(scenario["reason"] == SLOW for scenario in run["scenarios"])
        lines.append(f"  scenarios  {counted}{f' ({slow} left to `make recovery`)' if slow else ''}")
    if TIME_LIMITS in run["facts"]:
        lines.append(f"  limits     {run['facts'][TIME_LIMITS]}")
    lines += [f"  slow       {measure}, and nothing is to be done" for measure in over(run)]
    causes, faults = verdict.causes[:SHOWN_CAUSES], verdict.unexplained[:SHOWN_FAULTS]
    for number, cause in enumerate(causes):
        lines += ["", *_cause_rows(cause, run["journal"] if number == 0 else (), run["remedies"], width)]
    if len(verdict.causes) > len(causes):
        lines.append(f"\n  and {counted_of(len(verdict.causes) - len(causes), 'more cause')}: see the report")
    for fault in faults:
        lines += ["", *_rows(fault, width)]
    if len(verdict.unexplained) > len(faults):
        lines.append(f"\n  and {counted_of(len(verdict.unexplained) - len(faults), 'more fault')}: see the report")
    typed = [cause["finding"].get(what) for cause in causes for what in ("paste", "repair")]
    if any([*typed, *(fault.paste for fault in faults)]) and _stands(run):
        lines += ["", f"  paste in   bin/platform shell --run {run['cluster']}"]
    lines += ["", f"  report     {run['folder']}/report.html"]
    if any(stage["stage"] == DIAGNOSIS for stage in run["stages"]):
        lines += _of_diagnosis(run, width)
    return clean("\n".join([*lines, ""]))


def _of_diagnosis(run: Item, width: int) -> list[str]:
    """What else there is of a diagnosis: what it could not see, and what can be sent to somebody."""
    unseen = unseen_in(run)
    rows = [("not seen", ", ".join(unseen))] if unseen else []
    rows += [("note", note["text"]) for note in run["notes"]]
    rows += [
        ("evidence", f"{run['folder']}/evidence"),
        ("to send", f"{run['folder']}/{ARCHIVE} (known secrets are masked)"),
    ]
    return [f"  {name:9}  {cut(one_line(text), 2 * (width - 13))}" for name, text in rows]


def unseen_in(run: Item) -> list[str]:
    """What nobody could tell in the last look."""
    return list(run["looks"][-1].get("unseen", ())) if run["looks"] else []


def _stands(run: Item) -> bool:
    """Whether the run left its cluster standing."""
    return bool(run["cluster"]) and all(stage["stage"] != "teardown" for stage in run["stages"])


def for_programs(run: Item, verdict: Verdict) -> Item:
    """The verdict as JSON: names of rules and layers are stable."""
    return {
        "status": int(verdict.status),
        "headline": verdict.headline,
        "run": run["run_id"],
        "cluster": run["cluster"],
        "report": f"{run['folder']}/report.html",
        "scenarios": verdict.counts,
        "causes": [{**cause, "to_do": run["remedies"].get(cause["finding"]["rule"], "")} for cause in verdict.causes],
        "unseen": unseen_in(run),
        "faults": [{**asdict(fault), "status": int(fault.status)} for fault in verdict.unexplained],
    }


def _cause_rows(cause: Item, journal: Sequence[Item], remedies: Mapping[str, str], width: int) -> list[str]:
    """One cause on ten lines: what, where, since when, expected, seen, the journals, what to look at and what mends it,
    or what the README says of its rule (a record of before there were repairs). What is to be typed is never cut."""
    finding, consequences = cause["finding"], cause.get("consequences", ())
    rows = [("cause", f"{finding['about']} (layer {finding['layer']}, {since(finding)})")]
    rows += [("expected", finding["expected"]), ("seen", finding["seen"])]
    rows += [("journal", f"{it['machine']} {clock(it['time'])} {it['text']}") for it in _nearest(journal, finding)]
    if consequences:
        rows.append(("so also", f"{counted_of(len(consequences), 'consequence')}: {_briefly(consequences, finding)}"))
    shown = [(name, cut(one_line(text), width - 13)) for name, text in rows]
    shown.append(("look at", one_line(finding.get("paste") or "")))
    repair = one_line(finding.get("repair") or "")
    remedy = "" if repair else cut(one_line(remedies.get(finding["rule"], "")), 2 * (width - 13))
    shown += [("mend", repair), ("to do", remedy)]
    return [f"  {name:9}  {text}" for name, text in shown if text]


def _nearest(journal: Sequence[Item], finding: Item) -> list[Item]:
    """The few lines that are nearest to a finding's moment, in the order of time."""
    lines = sorted(journal, key=lambda line: abs(float(line["time"]) - moment(finding)))[:SHOWN_LINES]
    return sorted(lines, key=lambda line: float(line["time"]))


def moment(finding: Item) -> float:
    """When a finding came about, as the thing itself says, or else was first seen; seconds since the epoch."""
    return float(finding.get("since") or finding["first_seen"])


def since(finding: Item) -> str:
    """Since when a finding holds: as the thing itself says, or as it was first seen."""
    return f"{'since' if finding.get('since') else 'seen at'} {clock(moment(finding))} UTC"


def clock(t: float) -> str:
    """The time of day, in UTC."""
    return f"{datetime.datetime.fromtimestamp(t, datetime.UTC):%H:%M:%S}"


def counted_of(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _briefly(findings: Sequence[Item], cause: Item) -> str:
    """What follows from a cause; of the same thing what is seen of it, for the two would read alike."""
    said = (
        f"{it['about']}: {told_apart(it, cause)}" if it["about"] == cause["about"] else it["about"] for it in findings
    )
    return ", ".join(dict.fromkeys(said))


def told_apart(finding: Item, cause: Item) -> str:
    """What a consequence is that has the subject of its cause: what is seen, or else the rule that it breaks."""
    return cut(one_line(finding["seen"]), SHOWN_OF_SEEN) if finding["seen"] != cause["seen"] else str(finding["rule"])


def _rows(fault: Fault, width: int) -> list[str]:
    rows = {"fault": fault.title, "line": fault.line, "layer": fault.layer, "expected": fault.expected}
    rows |= {"seen": fault.seen, "where": fault.where}
    shown = {name: cut(one_line(text), 3 * (width - 13)) for name, text in rows.items()}
    shown["look at"] = one_line(fault.paste)
    return [f"  {name:9}  {text}" for name, text in shown.items() if text]
