"""What a run says to a reader: one HTML file, a pure function of the document that harness.record.log.fold makes.

It takes the fold of a log that was cut off, and of an empty one. What went wrong is what the verdict found. Seconds are
seconds, times are UTC; whatever a machine or a command said is stripped of terminal escapes, and escaped.
"""

from __future__ import annotations

import datetime
import functools
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape

from harness.errors import ExitStatus
from harness.record.log import SILENT, lasted
from harness.reports.drawing import draw
from harness.reports.measures import measured
from harness.reports.plots import plot
from harness.reports.verdict import LAYERS, Fault, Verdict, clock, judge, since, title, unseen_in
from harness.snapshot.data import Snapshot
from harness.text import MARKS, OUTCOMES, clean, counted, took

Item = dict[str, Any]
# Commands, exchanges, ... by (scenario, index of the step)
Doings = dict[tuple[Any, Any], list[Item]]

# Exit status -> the outcome whose colour and mark it has; every other has those of an error.
OUTCOME_OF_STATUS = {
    None: "interrupted",
    ExitStatus.VERIFIED: "passed",
    ExitStatus.PLATFORM_WRONG: "failed",
    ExitStatus.INTERRUPTED: "interrupted",
    ExitStatus.NOTHING_VERIFIED: "interrupted",
}

# The path of a snapshot among the artefacts
SNAPSHOT = re.compile(r"(?:.*/)?snapshots/(\d+)\.json")

# Characters of one stream that the report shows: beginning and end. run.json has more.
SHOWN, SHOWN_OF_FAILED = 1_000, 16_000
# Values of one wait, and different things done in one step, that the report shows.
SHOWN_VALUES, SHOWN_DOINGS = 40, 40
# What a step does, by kind, and what makes two polls the same (nothing: each is shown by itself).
NOUNS = {"command": "command", "remote": "remote command", "exchange": "HTTP exchange", "wait": "wait"}
SAME = {
    "exchange": ("method", "url", "status", "error"),
    "remote": ("machine", "command", "status", "stdout", "stderr"),
}


def render_html(run: Item, snapshots: Mapping[int, Snapshot | str] | None = None) -> str:
    """The report of a run, one HTML file without anything outside it.

    `snapshots` are those that `looks_shown` names, by their numbers; of one that cannot be had, why.
    """
    view = _view(run) | {"drawings": _drawings(run, snapshots or {})}
    return _environment().get_template("report.html").render(view).lstrip()


def looks_shown(run: Item) -> dict[int, str]:
    """The looks that are drawn, and what each is: the one that the causes were found in, and the last on record."""
    recorded = [int(it[1]) for item in run["artefacts"] if (it := SNAPSHOT.fullmatch(str(item["path"])))]
    last = {recorded[-1]: "the last look of the run"} if recorded else {}
    found = {run["causes_look"]: "where the causes were found"} if run["causes_look"] else {}
    return {**found, **last, **found}


def _drawings(run: Item, snapshots: Mapping[int, Snapshot | str]) -> list[Item]:
    """What there is to draw; of what cannot be drawn, why."""
    drawings: list[Item] = []
    for number, about in looks_shown(run).items():
        now = snapshots.get(number, "its snapshot was not given")
        if isinstance(now, str):
            drawings.append({"about": f"Look {number}, {about}", "drawing": None, "why": now})
            continue
        drawing = draw(now, run["causes"] if number == run["causes_look"] else [])
        drawings.append({"about": f"Look {number}, {about}, {_when(now.asked)}", "drawing": drawing, "why": ""})
    return drawings


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    environment.filters |= {"took": took, "gherkin": _gherkin, "stream": _stream, "clean": clean}
    return environment


def _gherkin(text: object) -> Markup:
    """Step text with its `commands` set as code."""
    parts = clean(text).split("`")
    if len(parts) % 2 == 0:
        return escape(clean(text))
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def _stream(text: object, limit: int = SHOWN) -> str:
    whole = clean(text).strip("\n")
    if len(whole) <= limit:
        return whole
    left_out = f"[... {len(whole) - limit:,} characters left out; run.json has them ...]"
    return f"{whole[: limit // 2]}\n{left_out}\n{whole[-limit // 2 :]}"


def _when(t: float | None) -> str:
    return "" if t is None else f"{datetime.datetime.fromtimestamp(t, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _view(run: Item) -> Item:
    """Everything the template shows."""
    doings = _doings(run)
    scenarios = [_scenario(number, scenario, doings, run) for number, scenario in enumerate(run["scenarios"], 1)]
    by_id = {scenario["id"]: scenario for scenario in scenarios}
    counts = Counter(scenario["outcome"] for scenario in scenarios)
    judged = judge(run)
    causes = [_cause(cause, run["remedies"]) for cause in judged.causes]
    summary = counted(counts)
    return {
        "run": run,
        "outcome": OUTCOME_OF_STATUS.get(run["status"], "error"),
        "title": title(run["status"]),
        "headline": run["headline"] or (f"scenarios: {summary}" if summary else "no scenario was planned"),
        "when": _when(run["started"]),
        "seconds": lasted(run, run),
        "marks": MARKS,
        "counts": [(name, counts[name]) for name in OUTCOMES if counts[name]],
        "stages": [{**stage, "seconds": lasted(stage, run)} for stage in run["stages"]],
        "layers": _layers(judged),
        "cards": [_card(fault, by_id.get(fault.scenario)) for fault in judged.unexplained],
        "causes": causes,
        "journal": [{**line, "clock": clock(line["time"])} for line in run["journal"]],
        "scenarios": scenarios,
        "features": _features(scenarios),
        "longest": max((step["seconds"] or 0 for s in scenarios for step in s["steps"]), default=0) or 1,
        "tasks": _tasks(run),
        "elsewhere": _elsewhere(run, doings),
        "facts": sorted(run["facts"].items()) + _as_it_was(run) + [("took", str(it)) for it in measured(run)],
        "artefacts": [{**item, **_artefact(item, run)} for item in run["artefacts"]],
        "unseen": unseen_in(run),
        # of a cluster that stood before, and stands after it, nothing was to be removed
        "its_own": bool(run["leaks"]) or run["cluster"] == run["run_id"],
        "torn_down": any(stage["stage"] == "teardown" and stage["outcome"] == "passed" for stage in run["stages"]),
        "shown_of_failed": SHOWN_OF_FAILED,
        "shown": SHOWN,
    }


def _as_it_was(run: Item) -> list[tuple[str, str]]:
    """What a run that must change nothing found alike before and after it; machines' boots as one row."""
    if len(run["fingerprints"]) < 2:
        return []
    before, after = run["fingerprints"][0]["facts"], run["fingerprints"][-1]["facts"]
    # of what did not answer nobody knows whether it changed
    same = {name: value for name, value in before.items() if after.get(name) == value != SILENT}
    boots = [name for name in same if name.startswith("boot of ")]
    rows = [(f"left as it was: {name}", value) for name, value in same.items() if name not in boots]
    return [(f"left as they were: boots of {len(boots)} machines", "no machine started again"), *rows]


def _artefact(item: Item, run: Item) -> Item:
    """Its path in the run's folder, which the record may have from the root, and the link to it."""
    path = clean(item["path"]).rpartition(f"/{run['run_id']}/")[2]
    return {"path": path, "href": "./" + quote(path)}


def _card(fault: Fault, scenario: Item | None) -> Item:
    """A fault with the scenario and the step it belongs to, where it does."""
    if scenario is None:
        return {"fault": fault, "scenario": None, "step": None, "outcome": "failed"}
    step = scenario["steps"][fault.step] if fault.step is not None else None
    return {"fault": fault, "scenario": scenario, "step": step, "outcome": scenario["outcome"]}


def _scenario(number: int, scenario: Item, doings: Doings, run: Item) -> Item:
    steps = []
    for index, step in enumerate(scenario["steps"]):
        done = _shown(doings.get((scenario["id"], index), []), step["started"] or scenario["started"], run)
        steps.append({**step, "seconds": lasted(step, run), "said": _message(step["error"]), "doings": done})
    around = _shown(doings.get((scenario["id"], None), []), scenario["started"], run)
    has_message = any(step["said"] for step in steps)
    seconds = lasted(scenario, run)
    streams = [stream for stream in run["traffic"] if stream.get("scenario") == scenario["id"]]
    plots = [plot(stream) for stream in sorted(streams, key=lambda stream: str(stream["site"]))]
    return {
        **scenario,
        "plots": plots,
        "number": number,
        "steps": steps,
        "around": around,
        "told": has_message,
        "seconds": seconds,
    }


def _message(error: object) -> str:
    """What an error says: the record keeps a step's as an object, a task's as a text."""
    return clean(error.get("message") if isinstance(error, dict) else error)


def _cause(cause: Item, remedies: dict[str, str]) -> Item:
    finding = cause["finding"]
    repair = finding.get("repair", "")
    more = {"when": since(finding), "to_do": remedies.get(finding["rule"], "")}
    more |= {"repair": repair, "line": "" if repair.startswith("README, ") else repair}
    return {**finding, **more, "consequences": cause.get("consequences", [])}


def _layers(judged: Verdict) -> list[tuple[str, str]]:
    """Each layer from the ground up, with `lowest`, `wrong` or nothing; empty where no layer is wrong."""
    wrong = [fault.layer for fault in judged.unexplained if fault.status is ExitStatus.PLATFORM_WRONG]
    wrong += [cause["finding"]["layer"] for cause in judged.causes]
    found = [layer for layer in LAYERS if layer in wrong]
    return [(layer, "lowest" if layer == found[0] else "wrong" * (layer in wrong)) for layer in LAYERS] if found else []


def _features(scenarios: list[Item]) -> list[Item]:
    features: dict[str, Item] = {}
    for scenario in scenarios:
        about = {"path": scenario["feature"], "title": scenario["feature_title"], "scenarios": []}
        features.setdefault(scenario["feature"], about)["scenarios"].append(scenario)
    for feature in features.values():
        feature["seconds"] = sum(scenario["seconds"] or 0 for scenario in feature["scenarios"])
        feature["counts"] = Counter(scenario["outcome"] for scenario in feature["scenarios"])
    return list(features.values())


def _tasks(run: Item) -> list[Item]:
    """Tasks by stage, with where they stand on its time line, in percent of the longest (they run side by side)."""
    tasks = [{**task, "seconds": lasted(task, run) or 0.0} for task in run["tasks"]]
    first: dict[str, float] = {}
    for task in tasks:
        task["said"] = _message(task.get("error"))
        task["stage"] = _stage_at(run, task["started"])
        task["left"] = task["started"] - first.setdefault(task["stage"], task["started"])
    span = max((task["left"] + task["seconds"] for task in tasks), default=0) or 1
    for task in tasks:
        task["left"] = min(100 * task["left"] / span, 99)
        task["width"] = min(max(100 * task["seconds"] / span, 0.7), 100 - task["left"])
    return [{"stage": stage, "tasks": [task for task in tasks if task["stage"] == stage]} for stage in first]


def _stage_at(run: Item, t: float) -> str:
    begun = [str(stage["stage"]) for stage in run["stages"] if stage["started"] <= t]
    return begun[-1] if begun else "before every stage"


def _doings(run: Item) -> Doings:
    """Commands, remote commands, exchanges and waits in order of time, by (scenario, index of the step)."""
    found: Doings = {}
    for table, kind in (("commands", "command"), ("remotes", "remote"), ("exchanges", "exchange"), ("waits", "wait")):
        for item in run[table]:
            # exchanges and remote commands are written down when they end
            began = item["started"] if "started" in item else item["t"] - (item.get("seconds") or 0)
            key = (item.get("scenario"), item.get("step") if item.get("scenario") is not None else None)
            found.setdefault(key, []).append({**item, "kind": kind, "began": began})
    return {key: sorted(items, key=lambda item: float(item["began"])) for key, items in found.items()}


def _shown(doings: list[Item], start: float | None, run: Item) -> Item:
    """What was done in a step: repeated polls as one line with a count, seconds from the step's start."""
    once: dict[object, Item] = {}
    for number, item in enumerate(doings):
        same = repr([item["kind"], *map(item.get, SAME[item["kind"]])]) if item["kind"] in SAME else number
        first = once.setdefault(same, {**item, "times": 0})
        first["times"] += 1
        first["last"] = item["began"]
    items = [_doing(item, item["began"] if start is None else start, run) for item in once.values()]
    kinds = Counter(item["kind"] for item in doings)
    return {
        "summary": ", ".join(f"{kinds[kind]} {NOUNS[kind]}{'s' * (kinds[kind] > 1)}" for kind in NOUNS if kinds[kind]),
        "items": _ends(items, SHOWN_DOINGS),
        "left_out": max(len(items) - SHOWN_DOINGS, 0),
    }


def _doing(item: Item, origin: float, run: Item) -> Item:
    times = {"at": max(item["began"] - origin, 0.0), "until": max(item["last"] - origin, 0.0)}
    item = {**item, **times, "seconds": lasted(item, run)}
    if item["kind"] == "command":
        item["shown"] = item.get("line") or shlex.join(map(str, item.get("argv") or []))
    if item["kind"] == "wait":
        item["track"] = _track(item, run)
    return item


def _ends(items: list[Item], limit: int) -> list[Item]:
    """The first and the last of too many."""
    return items if len(items) <= limit else items[: limit // 2] + items[-(limit // 2) :]


def _track(wait: Item, run: Item) -> list[Item]:
    """What a wait saw, each value with its offset, its seconds and its width in percent of the limit."""
    ended = wait["began"] + (lasted(wait, run) or 0)
    values = wait["seen"]
    ends = [value["t"] for value in values[1:]] + [max(ended, values[-1]["t"])] if values else []
    scale = max((wait.get("within") or 0) + (wait.get("hold_for") or 0), ended - wait["began"]) or 1
    track = [
        {
            "value": value["value"],
            "at": max(value["t"] - wait["began"], 0.0),
            "seconds": end - value["t"],
            "width": round(100 * (end - value["t"]) / scale, 2),
        }
        for value, end in zip(values, ends, strict=True)
    ]
    return _ends(track, SHOWN_VALUES)


def _elsewhere(run: Item, doings: Doings) -> list[Item]:
    """What was done outside every scenario, by the stage it began in."""
    known = {scenario["id"] for scenario in run["scenarios"]}
    loose = [item for (scenario, _), items in doings.items() if scenario not in known for item in items]
    by_stage: dict[str, list[Item]] = {}
    for item in sorted(loose, key=lambda item: float(item["began"])):
        by_stage.setdefault(_stage_at(run, item["began"]), []).append(item)
    starts = {stage["stage"]: stage["started"] for stage in run["stages"]}
    return [{"stage": name, "doings": _shown(items, starts.get(name), run)} for name, items in by_stage.items()]
