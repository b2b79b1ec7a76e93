"""What a run says to a reader (one HTML file) and to a CI system (JUnit XML).

Both are pure functions of the document that harness.record.fold makes; both take the fold of a log that was cut off,
and of an empty one. Seconds are seconds, times are UTC; whatever a machine or a command said is stripped of terminal
escapes and of characters that XML forbids, and escaped.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
import shlex
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape

from harness import errors
from harness.errors import ExitStatus

Item = dict[str, Any]

VERDICTS = {
    ExitStatus.VERIFIED: ("passed", "Verified"),
    ExitStatus.PLATFORM_WRONG: ("failed", "The platform is wrong"),
    ExitStatus.INTERRUPTED: ("interrupted", "Interrupted"),
    ExitStatus.INTERNAL_ERROR: ("error", "The harness is at fault"),
    ExitStatus.MISCONFIGURED: ("error", "Wrong usage or configuration"),
    ExitStatus.NOTHING_VERIFIED: ("interrupted", "Nothing was verified"),
    ExitStatus.ENVIRONMENT_FAILED: ("error", "The environment failed"),
}
NO_END = ("interrupted", "Interrupted: the record has no end")
LAYERS = ("config", "toolchain", "provision", "bootstrap", "schedule", "unit", "discovery", "content", "entry")
ORDER = ("passed", "failed", "error", "interrupted", "not_run")
MARKS = {"passed": "✓", "done": "✓", "cached": "✓", "failed": "✗", "error": "✗", "interrupted": "!", "not_run": "-"}

# Characters of one stream that the report shows: beginning and end. run.json has more.
SHOWN, SHOWN_OF_FAILED = 2_000, 16_000
# Values of one wait, and different things done in one step, that the report shows.
SHOWN_VALUES, SHOWN_DOINGS = 40, 60

ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # OSC: titles, links
    r"|\x1b[PX^_][^\x1b\n]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[ -/]*[0-~]"
)
FORBIDDEN = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(value: object) -> str:
    """Text as a terminal would leave it: no escapes, no control characters, no overwritten progress bars."""
    text = (
        value if isinstance(value, str) else "" if value is None else json.dumps(value, default=str, ensure_ascii=False)
    )
    text = ESCAPES.sub("", text)
    if "\r" in text:
        text = "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))
    return FORBIDDEN.sub("", text)


def took(seconds: float | None, digits: int = 1) -> str:
    """`3.2 s`, `2 min 03 s`, `1 h 02 min`; empty for None."""
    if seconds is None:
        return ""
    if round(seconds, digits) < 60:
        return f"{max(seconds, 0):.{digits}f} s"
    whole = round(seconds)
    minutes = f"{whole // 60} min {whole % 60:02} s"
    return minutes if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"


def render_html(run: Item) -> str:
    """The report of a run, one HTML file without anything outside it."""
    return _environment().get_template("report.html").render(_view(run)).lstrip()


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
    environment.filters |= {"took": took, "gherkin": _gherkin, "stream": _stream, "plural": _plural, "clean": clean}
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
    left_out = len(whole) - limit
    return (
        f"{whole[: limit // 2]}\n[... {left_out:,} characters left out; run.json has them ...]\n{whole[-limit // 2 :]}"
    )


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else noun + ('es' if noun.endswith('ch') else 's')}"


def _when(t: float | None) -> str:
    return "" if t is None else f"{datetime.datetime.fromtimestamp(t, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _seconds(item: Item, run: Item) -> float | None:
    """How long `item` took; to the last event of the log, where it never ended."""
    if item.get("seconds") is not None:
        return float(item["seconds"])
    if item.get("started") is None:
        return None
    ended = item.get("ended") or run.get("last_event") or item["started"]
    return max(float(ended) - float(item["started"]), 0.0)


def _verdict(run: Item) -> tuple[str, str]:
    status = run.get("status")
    if status is None:
        return NO_END
    return VERDICTS.get(status, ("error", f"Exit status {status}"))


def _view(run: Item) -> Item:
    """Everything the template shows."""
    doings = _doings(run)
    scenarios = [_scenario(number, scenario, doings, run) for number, scenario in enumerate(run["scenarios"], 1)]
    failures = [
        _failure(scenario) for scenario in scenarios if scenario["outcome"] in ("failed", "error", "interrupted")
    ]
    outcome, verdict = _verdict(run)
    counts = Counter(scenario["outcome"] for scenario in scenarios)
    findings = (run.get("diagnosis") or {}).get("findings") or []
    return {
        "run": run,
        "outcome": outcome,
        "verdict": verdict,
        "headline": run.get("headline") or _headline(counts),
        "when": _when(run.get("started")),
        "seconds": _seconds(run, run),
        "marks": MARKS,
        "counts": [(name, counts[name]) for name in ORDER if counts[name]],
        "stages": [{**stage, "seconds": _seconds(stage, run)} for stage in run["stages"]],
        "layers": _layers(run, failures),
        "failures": [*_broken(run), *failures],
        "findings": findings,
        "scenarios": scenarios,
        "features": _features(scenarios),
        "longest": max((step["seconds"] or 0 for s in scenarios for step in s["steps"]), default=0) or 1,
        "tasks": _tasks(run),
        "elsewhere": _elsewhere(run, doings),
        "facts": sorted(run["facts"].items()),
        "artefacts": [{**item, "href": "./" + quote(clean(item.get("path")))} for item in run["artefacts"]],
        "torn_down": any(stage["stage"] == "teardown" and stage["outcome"] == "passed" for stage in run["stages"]),
        "shown_of_failed": SHOWN_OF_FAILED,
        "shown": SHOWN,
    }


def _headline(counts: Counter[str]) -> str:
    said = [f"{counts[name]} {name.replace('_', ' ')}" for name in ORDER if counts[name]]
    return "scenarios: " + ", ".join(said) if said else "no scenario was planned"


def _error(value: object) -> Item:
    """The error of a step, stage or task, with every key; a bare text is its message."""
    error = dict.fromkeys(("kind", "message", "expected", "seen", "where", "paste", "layer"), "")
    return {**error, **value} if isinstance(value, dict) else {**error, "message": clean(value)}


def _scenario(number: int, scenario: Item, doings: dict[tuple[Any, Any], list[Item]], run: Item) -> Item:
    steps = []
    for index, step in enumerate(scenario["steps"]):
        done = doings.get((scenario["id"], index), [])
        start = step.get("started") or scenario.get("started")
        shown = _seconds(step, run) if step["outcome"] == "interrupted" else step["seconds"]
        error = _error(step["error"]) if step.get("error") else None
        steps.append({**step, "seconds": shown, "error": error, "doings": _shown(done, start, run)})
    around = _shown(doings.get((scenario["id"], None), []), scenario.get("started"), run)
    told = any(step["error"] for step in steps)
    seconds = _seconds(scenario, run)
    return {**scenario, "number": number, "steps": steps, "around": around, "told": told, "seconds": seconds}


def _failure(scenario: Item) -> Item:
    """A scenario that did not pass, as a card: the step it ended in, and what is known of the fault."""
    at = next((step for step in scenario["steps"] if step["outcome"] in ("failed", "interrupted")), None)
    error = _error((at or {}).get("error") or scenario.get("reason"))
    waits = [doing for doing in (at or {}).get("doings", {}).get("items", []) if doing["kind"] == "wait"]
    if scenario["outcome"] == "interrupted" and waits and waits[-1]["seen"]:
        error = {**error, "expected": waits[-1]["what"], "seen": waits[-1]["seen"][-1]["value"]}
    return {
        "scenario": scenario,
        "step": at,
        "outcome": scenario["outcome"],
        "error": error,
        "title": scenario["title"],
    }


def _broken(run: Item) -> list[Item]:
    """Tasks that failed, and stages whose fault is in no task, as failure cards."""
    tasks = [task for task in run["tasks"] if task["outcome"] in ("failed", "interrupted")]
    said = {_error(task.get("error"))["message"] for task in tasks}
    stages = [s for s in run["stages"] if s.get("error") and _error(s["error"])["message"] not in said]
    named = [(f"Task: {task['task']}", task) for task in tasks] + [(f"Stage: {s['stage']}", s) for s in stages]
    card = {"scenario": None, "step": None}
    return [{**card, "title": t, "outcome": i["outcome"], "error": _error(i.get("error"))} for t, i in named]


def _layers(run: Item, failures: list[Item]) -> list[tuple[str, str]]:
    """Each layer from the ground up, with `lowest`, `wrong` or nothing; empty where no layer is wrong."""
    wrong = {failure["error"].get("layer") for failure in failures}
    wrong |= {finding.get("layer") for finding in (run.get("diagnosis") or {}).get("findings") or []}
    wrong |= {(run.get("diagnosis") or {}).get("layer")}
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
    tasks = [
        {**task, "seconds": _seconds(task, run) or 0.0, "error": _error(task.get("error"))} for task in run["tasks"]
    ]
    first: dict[str, float] = {}
    for task in tasks:
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


def _doings(run: Item) -> dict[tuple[Any, Any], list[Item]]:
    """Commands, remote commands, exchanges and waits in order of time, by (scenario, index of the step)."""
    found: dict[tuple[Any, Any], list[Item]] = {}
    for table, kind in (("commands", "command"), ("remotes", "remote"), ("exchanges", "exchange"), ("waits", "wait")):
        for item in run[table]:
            # exchanges and remote commands are written down when they end
            began = item["started"] if "started" in item else item["t"] - (item.get("seconds") or 0)
            key = (item.get("scenario"), item.get("step") if item.get("scenario") is not None else None)
            found.setdefault(key, []).append({**item, "kind": kind, "began": began})
    return {key: sorted(items, key=lambda item: float(item["began"])) for key, items in found.items()}


def _shown(doings: list[Item], start: float | None, run: Item) -> Item:
    """What was done in a step: repeated polls as one line with a count, seconds from the step's start."""
    kinds = Counter(item["kind"] for item in doings)
    names = {"command": "command", "remote": "remote command", "exchange": "HTTP exchange", "wait": "wait"}
    once: dict[object, Item] = {}
    for number, item in enumerate(doings):
        same = _sameness(item) or number
        first = once.setdefault(same, {**item, "times": 0})
        first["times"] += 1
        first["last"] = item["began"]
    items = list(once.values())
    for item in items:
        origin = item["began"] if start is None else start
        item |= {"at": max(item["began"] - origin, 0.0), "until": max(item["last"] - origin, 0.0)}
        item["seconds"] = _seconds(item, run)
        if item["kind"] == "command":
            item["shown"] = item.get("line") or _pasted(item.get("argv") or [])
        if item["kind"] == "wait":
            item["track"] = _track(item, run)
    left_out = max(len(items) - SHOWN_DOINGS, 0)
    summary = ", ".join(_plural(kinds[kind], names[kind]) for kind in names if kinds[kind])
    return {"summary": summary, "items": items[: SHOWN_DOINGS // 2] + items[SHOWN_DOINGS // 2 + left_out :]} | {
        "left_out": left_out
    }


def _sameness(item: Item) -> object:
    """What makes two polls the same; None for what is always shown by itself."""
    keys = {
        "exchange": ("method", "url", "status", "error"),
        "remote": ("machine", "command", "status", "stdout", "stderr"),
    }
    return repr([item["kind"], *(item.get(key) for key in keys[item["kind"]])]) if item["kind"] in keys else None


def _pasted(argv: Iterable[Any]) -> str:
    return shlex.join(str(word) for word in argv)


def _track(wait: Item, run: Item) -> list[Item]:
    """What a wait saw, each value with its offset, its seconds and its width in percent of the limit."""
    ended = wait["began"] + (_seconds(wait, run) or 0)
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
    half = SHOWN_VALUES // 2
    return track if len(track) <= SHOWN_VALUES else track[:half] + track[-half:]


def _elsewhere(run: Item, doings: dict[tuple[Any, Any], list[Item]]) -> list[Item]:
    """What was done outside every scenario, by the stage it began in."""
    known = {scenario["id"] for scenario in run["scenarios"]}
    loose = [item for (scenario, _), items in doings.items() if scenario not in known for item in items]
    by_stage: dict[str, list[Item]] = {}
    for item in sorted(loose, key=lambda item: float(item["began"])):
        by_stage.setdefault(_stage_at(run, item["began"]), []).append(item)
    starts = {stage["stage"]: stage["started"] for stage in run["stages"]}
    return [{"stage": name, "doings": _shown(items, starts.get(name), run)} for name, items in by_stage.items()]


def junit_xml(run: Item) -> str:
    """The run as JUnit XML: a suite per feature, and one of stages and leaks. Red unless the exit status is 0."""
    root = ET.Element("testsuites", name=clean(run.get("run_id") or "platform"))
    for feature in _features([_scenario(0, scenario, {}, run) for scenario in run["scenarios"]]):
        suite = _suite(root, feature["title"], feature["scenarios"][0].get("started") or run.get("started"))
        _properties(suite, {"feature": feature["path"]})
        for scenario in feature["scenarios"]:
            _scenario_case(suite, scenario)
    _stages_suite(root, run)
    for suite in root:
        _count(suite)
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, 0)) for suite in root)))
    root.set("time", _time(_seconds(run, run)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _time(seconds: float | None) -> str:
    return f"{seconds or 0:.3f}"


def _suite(root: ET.Element, name: object, started: float | None) -> ET.Element:
    suite = ET.SubElement(root, "testsuite", name=clean(name))
    if started is not None:
        suite.set("timestamp", f"{datetime.datetime.fromtimestamp(started, datetime.UTC):%Y-%m-%dT%H:%M:%S}")
    return suite


def _properties(suite: ET.Element, values: Item) -> None:
    properties = ET.SubElement(suite, "properties")
    for name, value in values.items():
        ET.SubElement(properties, "property", name=clean(name), value=clean(value))


def _case(suite: ET.Element, classname: object, name: object, seconds: float | None) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=clean(classname), name=clean(name), time=_time(seconds))


def _fault(case: ET.Element, tag: str, error: Item) -> None:
    message = error["message"] or error["seen"] or "no message on record"
    fault = ET.SubElement(case, tag, message=clean(message), type=clean(error["kind"] or tag))
    rows = [f"{name}: {clean(error[name])}" for name in ("layer", "expected", "seen", "where", "paste") if error[name]]
    fault.text = "\n".join([clean(message), *rows])


def _scenario_case(suite: ET.Element, scenario: Item) -> None:
    case = _case(suite, Path(str(scenario["feature"])).stem, scenario["title"], scenario["seconds"])
    card = _failure(scenario)
    if scenario["outcome"] == "not_run":
        ET.SubElement(case, "skipped", message=clean(scenario.get("reason") or "not run"))
    elif scenario["outcome"] != "passed":
        at = f"{card['step']['keyword'].strip()} {card['step']['text']}: " if card["step"] else ""
        message = at + clean(card["error"]["message"] or scenario.get("reason"))
        _fault(case, "failure" if scenario["outcome"] == "failed" else "error", {**card["error"], "message": message})
    steps = [
        f"{step['outcome'].replace('_', ' '):<11} {took(step['seconds']):>10}  {step['keyword'].strip()} {step['text']}"
        for step in scenario["steps"]
    ]
    ET.SubElement(case, "system-out").text = clean("\n".join(steps))


def _stages_suite(root: ET.Element, run: Item) -> None:
    suite = _suite(root, "stages", run.get("started"))
    about = {name: run.get(name) for name in ("run_id", "target", "status", "headline") if run.get(name) is not None}
    _properties(suite, about | run["facts"])
    met = {stage["stage"]: stage for stage in run["stages"]}
    for name in dict.fromkeys(["setup", "ground", "teardown", *met]):
        stage = met.get(name)
        if name in ("setup", "ground", "teardown") or (stage or {}).get("error"):
            _stage_case(suite, name, stage, run)
    for leak in run["leaks"]:
        kept = "removed afterwards" if leak.get("removed") else "still there"
        message = f"{leak.get('what')} {leak.get('name')} was left behind; {kept}"
        case = _case(suite, "leaks", f"{leak.get('what')} {leak.get('name')}", None)
        _fault(case, "failure", {**_error(message), "kind": "leak"})
    red = {child.tag for case in root.iter("testcase") for child in case} & {"failure", "error"}
    if run.get("status") != ExitStatus.VERIFIED and not red:
        _fault(_case(suite, "stages", "verdict", None), "error", _error(run.get("headline") or _verdict(run)[1]))


def _stage_case(suite: ET.Element, name: str, stage: Item | None, run: Item) -> None:
    case = _case(suite, "stages", name, _seconds(stage or {}, run))
    if stage is None:
        ET.SubElement(case, "skipped", message="not reached")
    elif stage["outcome"] != "passed" or stage.get("error"):
        error = _error(stage.get("error") or f"stage {name}: {stage['outcome']}")
        kind = getattr(errors, str(error["kind"]), None)
        wrong = isinstance(kind, type) and issubclass(kind, errors.PlatformWrong)
        _fault(case, "failure" if wrong else "error", error)


def _count(suite: ET.Element) -> None:
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("time", _time(sum(float(case.get("time", 0)) for case in cases)))
