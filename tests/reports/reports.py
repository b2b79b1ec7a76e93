"""Runs whose reports are looked at: their documents, and the snapshots that these draw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.record.log import fold
from harness.rules.judging import causes, judge
from harness.runs.watch import document_of
from harness.snapshot.data import Snapshot
from tests.reports.test_html import Log
from tests.rules.cases import ID, RUNS_AT, UNIT, look
from tests.transcripts.snapshots import REMOVED, green, grown, later, silent


def app_failed() -> Snapshot:
    """The blog's container is gone, and its unit failed: 503 everywhere."""
    ambassadors = {f"machines.{name}.ambassadors.blog.{RUNS_AT}": "DOWN" for name in ID}
    answers = {f"outside.sites.blog.{name}.status": 503 for name in ID}
    gone = {"machines.coreos-2.containers.blog": REMOVED, f"{UNIT}.active": "failed", f"{UNIT}.sub": "failed"}
    return look(gone | ambassadors | answers)


def found(now: Snapshot) -> list[dict[str, Any]]:
    """The causes as a document has them, when it has been so for long."""
    judged = causes(judge([green(), later(now, 1), later(now, 20)]).findings, now)
    listed = [
        {"finding": document_of(it.finding), "consequences": list(map(document_of, it.consequences))} for it in judged
    ]
    read: list[dict[str, Any]] = json.loads(json.dumps(listed))
    return read


def document(now: Snapshot, look: int = 1) -> dict[str, Any]:
    """That of a run whose causes were found in this look, where there are any."""
    run = fold([{"t": now.asked, "kind": "run.started", "run_id": "r1", "target": "local"}])
    run["artefacts"] = [{"path": f"snapshots/{look:04}.json", "about": f"look {look}", "t": now.asked}]
    run["causes"] = found(now)
    run["causes_look"] = look if run["causes"] else 0
    return run


def fifty_scenarios(folder: Path) -> tuple[dict[str, Any], dict[int, Snapshot | str]]:
    """Fifty scenarios, each with two minutes of requests to two sites, on 40 machines; one of these was lost."""
    log = Log(folder / "events.jsonl")
    log("run.started", run_id="r1", target="local", command=["bin/platform", "acceptance"])
    for number in range(50):
        title = f"The machine of a blog is lost, and the blog moves, for the {number}th time"
        steps = [f"Then claim {index} of `fleetctl list-units` holds within 60 seconds" for index in range(5)]
        log.plan(title, *steps, feature=f"Feature {number // 6}", tags=("mutates",))
        for index in range(5):
            log.begin(title, index)
            log.command("fleetctl list-units", "blog.service coreos-1/192.0.2.11 active running\n" * 9)
            log.end(title, index)
        for site, failed in (("blog", 60), ("jpblog", 0)):
            log("traffic", **requests(site, failed))
        log.over(title)
    now = silent(grown(green(), 40), "coreos-7")
    for number in (9, 12):
        log("artefact", path=f"snapshots/{number:04}.json", about=f"look {number}")
    log("causes", look=9, causes=found(now))
    log("run.ended", status=1, headline="The platform is wrong")
    return log.run(), {9: now, 12: grown(green(), 40)}


def requests(site: str, failed: int) -> dict[str, Any]:
    """Two minutes of requests, twenty a second: after ten seconds a machine is lost, later it comes back."""
    bad = [10 if 20 <= at < 20 + failed // 10 else 0 for at in range(240)]
    changes = [
        {"what": "coreos-7 is lost", "after": 10.1, "made": 900, "failed": failed, "wrong": 1, "right_after": 3.04,
         "first_seen": "status 502"},
        {"what": "coreos-7 is switched on again", "after": 55.0, "made": 1300, "failed": 0, "wrong": 0,
         "right_after": 0.0, "first_seen": ""},
    ]  # fmt: skip
    return {
        "site": site,
        "rate": 20,
        "bucket": 0.5,
        "right": [10 - it for it in bad],
        "failed": [it if at % 3 else it // 2 for at, it in enumerate(bad)],
        "wrong": [0 if at % 3 else it - it // 2 for at, it in enumerate(bad)],
        "changes": changes,
    }
