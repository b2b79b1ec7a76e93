"""What a run says to a CI system: JUnit XML, a pure function of the document that harness.record.log.fold makes.

A suite per feature, and one of the run itself: its stages, and the faults that are no scenario's. A fault is a failure
when the platform is wrong, else an error. Red unless the exit status is 0.
"""

from __future__ import annotations

import datetime
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import ExitStatus
from harness.record.log import lasted
from harness.reports.verdict import Fault, judge, title
from harness.text import clean, took

Item = dict[str, Any]

STAGES = ("setup", "ground", "teardown")  # of every run; the runbook's is the features


def junit_xml(run: Item) -> str:
    """The run as JUnit XML."""
    faults = judge(run).faults
    root = ET.Element("testsuites", name=clean(run.get("run_id") or "platform"))
    suites: dict[str, ET.Element] = {}
    of_scenario = {fault.scenario: fault for fault in faults if fault.scenario}
    for scenario in run["scenarios"]:
        path = scenario["feature"]
        if path not in suites:
            suites[path] = _suite(root, scenario["feature_title"], scenario["started"] or run["started"])
            _properties(suites[path], {"feature": path})
        _scenario_case(suites[path], scenario, of_scenario.get(scenario["id"]), run)
    _run_suite(root, run, [fault for fault in faults if not fault.scenario])
    _count(root, run)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _scenario_case(suite: ET.Element, scenario: Item, fault: Fault | None, run: Item) -> None:
    case = _case(suite, Path(str(scenario["feature"])).stem, scenario["title"], lasted(scenario, run))
    if fault is not None:
        step = scenario["steps"][fault.step] if fault.step is not None else None
        at = f"{step['keyword'].strip()} {step['text']}: " if step else ""
        _fault(case, fault, at + clean(fault.message or fault.seen))
    elif scenario["outcome"] == "not_run":
        ET.SubElement(case, "skipped", message=clean(scenario["reason"] or "not run"))
    lines = []
    for step in scenario["steps"]:
        outcome = step["outcome"].replace("_", " ")
        lines.append(f"{outcome:<11} {took(lasted(step, run)):>10}  {step['keyword'].strip()} {step['text']}")
    ET.SubElement(case, "system-out").text = clean("\n".join(lines))


def _run_suite(root: ET.Element, run: Item, faults: list[Fault]) -> None:
    suite = _suite(root, "stages", run["started"])
    about = {name: run[name] for name in ("run_id", "target", "status", "headline") if run[name] is not None}
    _properties(suite, about | run["facts"])
    met = {stage["stage"]: stage for stage in run["stages"]}
    of_stage = {fault.stage: fault for fault in faults if fault.stage}
    for name in dict.fromkeys([*STAGES, *of_stage]):
        _stage_case(suite, name, met.get(name), of_stage.get(name), run)
    for fault in faults:
        if not fault.stage:
            _fault(_case(suite, "run", f"{fault.title}: {fault.seen}", None), fault, fault.seen)
    red = {child.tag for case in root.iter("testcase") for child in case} & {"failure", "error"}
    if run["status"] != ExitStatus.VERIFIED and not red:
        headline = run["headline"] or title(run["status"])
        _red(_case(suite, "stages", "verdict", None), "error", headline)


def _stage_case(suite: ET.Element, name: str, stage: Item | None, fault: Fault | None, run: Item) -> None:
    case = _case(suite, "stages", name, lasted(stage or {}, run))
    if stage is None:
        ET.SubElement(case, "skipped", message="not reached")
    elif fault is not None:
        _fault(case, fault, fault.seen)
    elif stage["outcome"] != "passed":
        _red(case, "error", f"stage {name}: {stage['outcome']}")


def _suite(root: ET.Element, name: object, started: float | None) -> ET.Element:
    suite = ET.SubElement(root, "testsuite", name=clean(name))
    if started is not None:
        suite.set("timestamp", f"{datetime.datetime.fromtimestamp(started, datetime.UTC):%Y-%m-%dT%H:%M:%S}")
    return suite


def _properties(suite: ET.Element, values: Mapping[str, object]) -> None:
    properties = ET.SubElement(suite, "properties")
    for name, value in values.items():
        ET.SubElement(properties, "property", name=clean(name), value=clean(value))


def _case(suite: ET.Element, classname: object, name: object, seconds: float | None) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=clean(classname), name=clean(name), time=_time(seconds))


def _fault(case: ET.Element, fault: Fault, message: str) -> None:
    tag = "failure" if fault.status is ExitStatus.PLATFORM_WRONG else "error"
    rows = {"line": fault.line, "layer": fault.layer, "expected": fault.expected, "seen": fault.seen}
    rows |= {"where": fault.where, "paste": fault.paste}
    _red(case, tag, message, *(f"{name}: {value}" for name, value in rows.items() if value), kind=fault.kind)


def _red(case: ET.Element, tag: str, message: str, *rows: str, kind: str = "") -> None:
    element = ET.SubElement(case, tag, message=clean(message), type=clean(kind or tag))
    element.text = "\n".join(map(clean, (message, *rows)))


def _count(root: ET.Element, run: Item) -> None:
    tags = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    for suite in root:
        cases = suite.findall("testcase")
        suite.set("tests", str(len(cases)))
        for name, tag in tags.items():
            suite.set(name, str(sum(case.find(tag) is not None for case in cases)))
        suite.set("time", _time(sum(float(case.get("time", 0)) for case in cases)))
    for name in ("tests", *tags):
        root.set(name, str(sum(int(suite.get(name, 0)) for suite in root)))
    root.set("time", _time(lasted(run, run)))


def _time(seconds: float | None) -> str:
    return f"{seconds or 0:.3f}"
