"""What a run says: the HTML report and the JUnit XML, above all of runs that went wrong or were cut off."""

from __future__ import annotations

import copy
import html.parser
import re
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ExitStatus
from harness.record.log import Recorder, fold, read_events
from harness.reports.html import render_html
from harness.reports.junit import junit_xml
from harness.reports.verdict import clock, judge, screen
from harness.text import clean, took

START = 1_785_578_400.0
FAULT = {
    "kind": "WaitExpired",
    "status": 1,
    "message": "entry point: not within 30 s; last seen: 502",
    "expected": "200 within 30 s",
    "seen": "502 Bad Gateway",
    "where": "http://hello.example/ (machine-1)",
    "paste": "curl -sv http://hello.example/",
}


class Log:
    """A log that is written with a clock of its own; `run()` is its fold."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = START
        self.count = 0
        self.recorder = Recorder(path, clock=lambda: self.now)

    def __call__(self, kind: str, after: float = 0, **fields: Any) -> None:
        self.now += after
        self.recorder.emit(kind, **fields)

    def run(self) -> dict[str, Any]:
        return fold(read_events(self.path))

    def stage(self, stage: str, outcome: str = "passed", **fields: Any) -> None:
        self("stage.started", stage=stage)
        self("stage.ended", 2, stage=stage, outcome=outcome, seconds=2, **fields)

    def plan(self, title: str, *steps: str, feature: str = "Infrastructure", tags: tuple[str, ...] = ()) -> None:
        listed = [{"keyword": s.split()[0], "text": s.split(" ", 1)[1], "line": 9 + i} for i, s in enumerate(steps)]
        path = f"features/{feature.lower()}.feature"
        about = {"feature": path, "feature_title": feature, "title": title, "line": 8, "tags": list(tags)}
        self("scenario.planned", id=title, steps=listed, **about)

    def begin(self, title: str, index: int = 0) -> None:
        if index == 0:
            self("scenario.started", id=title)
        self.recorder.within(scenario=title, step=index)
        self("step.started", id=title, index=index)

    def end(self, title: str, index: int, after: float = 1, error: Any = None) -> None:
        outcome = "failed" if error else "passed"
        self("step.ended", after, id=title, index=index, outcome=outcome, error=error, seconds=after)

    def over(self, title: str, outcome: str = "passed", reason: str | None = None, seconds: float = 1.5) -> None:
        self.recorder.within(scenario=None, step=None)
        self("scenario.ended", id=title, outcome=outcome, reason=reason, seconds=seconds)

    def passes(self, title: str, *steps: str, **about: Any) -> None:
        self.plan(title, *steps, **about)
        for index in range(len(steps)):
            self.begin(title, index)
            self.end(title, index)
        self.over(title)

    def command(self, line: str, stdout: str = "", stderr: str = "", status: int | str = 0) -> None:
        self.count += 1
        name = f"c{self.count}"
        self("command.started", id=name, argv=None, line=line, cwd="/run", environment=[], typed=True)
        self("command.ended", 1, id=name, status=status, seconds=1, stdout=stdout, stderr=stderr)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "events.jsonl")


class Page(html.parser.HTMLParser):
    """The page as a reader has it: its text, its elements; every element must be closed in order."""

    VOID = ("meta", "br", "link", "img")

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text = ""
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data + " "

    def texts(self, tag: str, name: str, value: str) -> bool:
        return any(t == tag and value in (a.get(name) or "").split() for t, a in self.elements)


def page(log: Log) -> Page:
    return Page(render_html(log.run()))


def junit(log: Log) -> ET.Element:
    """The JUnit document, held to the usual schema."""
    root = ET.fromstring(junit_xml(log.run()).encode())
    assert root.tag == "testsuites"
    for suite in root:
        assert suite.tag == "testsuite"
        assert [child.tag for child in suite] == ["properties"] + ["testcase"] * (len(suite) - 1)
        cases = suite.findall("testcase")
        assert int(suite.get("tests", "")) == len(cases)
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.get(name, "")) == len(suite.findall(f"testcase/{tag}"))
        for case in cases:
            assert {"name", "classname", "time"} <= set(case.keys()) and float(case.get("time", "")) >= 0
            assert all(child.tag in ("failure", "error", "skipped", "system-out") for child in case)
    return root


def case(log: Log, name: str) -> ET.Element:
    found = [case for case in junit(log).iter("testcase") if case.get("name") == name]
    assert len(found) == 1
    return found[0]


def outcome(log: Log, name: str) -> tuple[str, str]:
    """What a test case says: passed or its child, and the message."""
    children = [child for child in case(log, name) if child.tag != "system-out"]
    return (children[0].tag, children[0].get("message", "")) if children else ("passed", "")


def killed_in_a_step(log: Log) -> None:
    log("run.started", run_id="r1", target="local", command=["bin/platform", "acceptance"])
    log.stage("setup")
    log("stage.started", stage="runbook")
    log.plan(
        "The machines are built", "When the operator types `terraform apply`", "Then 3 machines run", "And it is so"
    )
    log.plan("The cluster agrees", "Then each names 3 members")
    log.begin("The machines are built")
    log.command("terraform apply", "Apply complete!")
    log.end("The machines are built", 0, 2)
    log.begin("The machines are built", 1)
    log("wait.started", id="w1", what="3 machines run", within=60, hold_for=0)
    log("wait.seen", 3, id="w1", value="2 of 3")
    log("command.started", 1, id="open", argv=["ssh", "a b"], line=None, typed=False)


# -- runs that end badly ---------------------------------------------------------------------------------------------


def test_empty_log_says_that_it_has_no_end(log: Log) -> None:
    seen = page(log)
    assert "Interrupted: the record has no end" in seen.text
    assert "no scenario was planned" in seen.text
    assert [(s.get("name"), s.get("skipped"), s.get("errors")) for s in junit(log)] == [("stages", "3", "1")]
    assert outcome(log, "verdict") == ("error", "Interrupted: the record has no end")
    assert outcome(log, "setup") == ("skipped", "not reached")


def test_killed_in_a_step_shows_the_step_and_what_it_last_saw(log: Log) -> None:
    killed_in_a_step(log)
    seen = page(log)
    assert "Interrupted: the record has no end" in seen.text
    assert "Then 3 machines run expected 3 machines run last seen 2 of 3" in seen.text
    assert "ssh 'a b' interrupted" in seen.text
    assert "4.0 s" in seen.text, "the step lasts to the last event of the log"
    kind, message = outcome(log, "The machines are built")
    assert kind == "error" and message.startswith("Then 3 machines run: the run ended before it did")
    assert float(case(log, "The machines are built").get("time", "")) == 7
    said = case(log, "The machines are built").findtext("system-out") or ""
    assert [line.split()[0] for line in said.splitlines()] == ["passed", "interrupted", "not"]


def test_scenario_never_reached_is_skipped_and_says_so(log: Log) -> None:
    killed_in_a_step(log)
    assert outcome(log, "The cluster agrees") == ("skipped", "not reached")
    assert "The cluster agrees not reached not run" in page(log).text


def test_scenario_not_run_for_a_reason_gives_it(log: Log) -> None:
    log.plan("The blog answers", "Then 200")
    log.over("The blog answers", "not_run", 'stands on "The machines are built", which failed', 0)
    assert outcome(log, "The blog answers") == ("skipped", 'stands on "The machines are built", which failed')
    assert "which failed" in page(log).text


def test_setup_that_failed_before_anything_was_planned(log: Log) -> None:
    log("run.started", run_id="r1", target="local")
    log("stage.started", stage="setup")
    log("task.started", task="base image")
    error = "command `mmdebstrap trixie` ended with 1: no mirror answers"
    log("task.ended", 3, task="base image", outcome="failed", seconds=3, error=error)
    log("stage.ended", stage="setup", outcome="failed", seconds=3, error=error, status=6)
    log("run.ended", status=6, headline="The environment failed, so the platform was not judged")
    seen = page(log)
    assert "✗ The environment failed The environment failed, so" in seen.text
    assert [tag for tag, _ in seen.elements].count("article") == 1, "one fault, one card"
    assert f"stage setup failed layer toolchain last seen {error}" in seen.text
    assert f"base image failed {error}" in seen.text
    assert [suite.get("name") for suite in junit(log)] == ["stages"]
    assert outcome(log, "setup") == ("error", error)
    assert outcome(log, "teardown") == ("skipped", "not reached")


@pytest.mark.parametrize(
    ("status", "error", "tag"),
    [
        (1, "command `terraform destroy` ended with 1", "failure"),
        (6, "disk full", "error"),
        (4, "no such target", "error"),
        (3, "'x'", "error"),
        (3, None, "error"),
    ],
)
def test_stage_that_failed_is_failure_only_if_the_platform_is_wrong(
    log: Log, status: int, error: str | None, tag: str
) -> None:
    log.stage("teardown", "failed", error=error, status=status)
    assert outcome(log, "teardown") == (tag, error or "no reason given")
    assert f"stage teardown failed last seen {error or 'no reason given'}" in page(log).text


def test_stage_cut_off_is_an_error(log: Log) -> None:
    log("stage.started", stage="ground")
    assert outcome(log, "ground") == ("error", "stage ground: interrupted")


def test_fault_of_the_runbook_stage_itself_is_not_lost(log: Log) -> None:
    log.stage("runbook", "failed", error="two steps for one phrase", status=3)
    assert outcome(log, "runbook") == ("error", "two steps for one phrase")
    assert "stage runbook failed last seen two steps for one phrase" in page(log).text


def failed_run(log: Log) -> None:
    log("run.started", run_id="r1", target="local")
    log("run.facts", terraform="1.9.8", machine={"cpus": 4})
    log("stage.started", stage="runbook")
    log.passes("The machines are built", "When the operator types `terraform apply`", tags=("@mutates",))
    steps = ('Given "hello" is deployed', "Then it answers 200", "And it is fast")
    log.plan("The blog answers", *steps, feature="Blogs", tags=("services",))
    log.begin("The blog answers")
    log.end("The blog answers", 0)
    log.begin("The blog answers", 1)
    log("wait.started", id="w", what="the entry point answers 200", within=30, hold_for=2)
    for number in range(50):
        shown = {"status": 502} if number % 2 else "refused"
        log("wait.seen", 0.5, id="w", value=shown)
        log("exchange", 0.1, method="GET", url="http://hello.example/", status=502, seconds=0.1, bytes=9)
    log("exchange", 0.1, method="GET", url="http://hello.example/", error="connection refused", seconds=0.1, bytes=0)
    log("remote", 0.1, machine="machine-1", command="systemctl status", status=3, seconds=0.1, stdout="", stderr="dead")
    log("wait.ended", id="w", outcome="expired", value="refused", seconds=30.1)
    log.end("The blog answers", 1, 30.2, FAULT)
    log.over("The blog answers", "failed", FAULT["message"], 31)
    log("stage.ended", stage="runbook", outcome="passed", seconds=40)
    log("artefact", path="evidence/a b.journal", about="journal")
    log("run.ended", status=1, headline="discovery is wrong")


def test_failure_comes_first_with_all_that_is_known(log: Log) -> None:
    failed_run(log)
    text = page(log).text
    assert text.index("The platform is wrong") < text.index("discovery is wrong") < text.index("What went wrong")
    card = text[text.index("What went wrong") : text.index("Runbook Infrastructure")]
    said = [FAULT[name] for name in ("kind", "expected", "seen", "where", "paste")]
    for known in ("Then", "it answers 200", "features/blogs.feature:10", "layer discovery", *said):
        assert str(known) in card


def layers(log: Log) -> list[tuple[str, str]]:
    states = re.findall(r'<li class="(\w*)"[^>]*>(\w+)</li>', render_html(log.run()))
    return [(layer, state) for state, layer in states if state]


def test_layers_name_the_lowest_that_is_wrong(log: Log) -> None:
    failed_run(log)
    assert layers(log) == [("discovery", "lowest")]
    log("causes", look=1, causes=[{"finding": finding("bootstrap")}, {"finding": finding("unit")}])
    assert layers(log) == [("bootstrap", "lowest"), ("unit", "wrong"), ("discovery", "wrong")]


# -- causes ----------------------------------------------------------------------------------------------------------


def finding(layer: str = "bootstrap", about: str = "etcd on coreos-2", **fields: Any) -> dict[str, Any]:
    return {
        "rule": "system-unit-runs", "layer": layer, "subject": ["etcd", "", "coreos-2"], "about": about,
        "expected": "etcd.service active", "seen": "systemd says failed", "first_seen": START + 4, "since": START,
        "paste": "ssh -F ssh_config coreos-2 'systemctl status etcd.service'", **fields,
    }  # fmt: skip


def run_with_causes(log: Log) -> None:
    """Rules do not hold, and two causes say why: one with consequences, and one by itself."""
    log.stage("setup")
    log.plan("Every unit runs", "Then every unit is active and running", feature="Units")
    log.begin("Every unit runs")
    error = {**FAULT, "kind": "RuleBroken", "layer": "unit", "expected": "active", "seen": "told by the causes"}
    log.end("Every unit runs", 0, 1, error)
    log.over("Every unit runs", "failed", error["message"])
    consequences = [
        finding("bootstrap", "fleet on coreos-2", seen="its API answers nothing"),
        finding("unit", "unit blog.service on coreos-2", seen="systemd says inactive"),
    ]
    alone = finding("content", "contents of blog on coreos-1", paste="")
    log("causes", look=3, causes=[{"finding": finding(), "consequences": consequences}, {"finding": alone}])
    lines = [("coreos-0", -0.5, "systemd[1]: Stopping"), ("coreos-2", 0.25, "etcd[7]: no space left on device")]
    log("journal", lines=[{"machine": name, "time": START + at, "text": text} for name, at, text in lines])


def test_causes_come_before_all_else_that_went_wrong(log: Log) -> None:
    run_with_causes(log)
    log.stage("runbook", "failed", error="two steps for one phrase", status=3)
    text = page(log).text
    causes, others = text.index("What is wrong ✗"), text.index("What went wrong ✗")
    assert causes < text.index("etcd on coreos-2") < text.index("contents of blog on coreos-1") < others
    assert others < text.index("two steps for one phrase")
    said = text[causes:others]
    first = finding()
    for known in ("rule", "layer", "expected", "seen", "paste"):
        assert str(first[known]) in said
    assert f"since {clock(START)} UTC" in said


@pytest.mark.parametrize(
    ("repair", "said", "typed"),
    [
        ("fleetctl start --no-block x.service", "what mends it fleetctl start --no-block x.service", 2),
        ("README, Recovery 2: make it again", "what mends it: README, Recovery 2: make it again", 1),
        ("", "what to look at ssh -F", 1),
    ],
)
def test_what_mends_a_cause_stands_behind_what_to_look_at(log: Log, repair: str, said: str, typed: int) -> None:
    log("causes", look=3, causes=[{"finding": finding(repair=repair)}])
    log.stage("runbook", "failed", error="two steps for one phrase", status=3)
    seen = page(log)

    assert said in seen.text and ("what mends it" in seen.text) is bool(repair)
    assert len([name for name, attributes in seen.elements if attributes.get("class") == "paste"]) == typed


def test_rules_that_do_not_hold_are_not_told_twice(log: Log) -> None:
    run_with_causes(log)
    text = page(log).text
    assert "What went wrong" not in text
    assert text.count("cause · system-unit-runs") == 2


def test_rules_that_do_not_hold_are_told_where_nobody_knows_a_cause(log: Log) -> None:
    run_with_causes(log)
    log("causes", look=4, causes=[])
    text = page(log).text
    assert "What is wrong" not in text and "What went wrong" in text
    assert "last seen told by the causes" in text


def test_what_follows_from_a_cause_never_reads_as_it(log: Log) -> None:
    run_with_causes(log)
    log("causes", look=4, causes=[{"finding": finding(), "consequences": [{**finding(), "rule": "etcd-is-healthy"}]}])
    assert "etcd on coreos-2 etcd-is-healthy" in page(log).text


def test_what_follows_from_a_cause_is_folded_below_it(log: Log) -> None:
    run_with_causes(log)
    seen = page(log)
    assert (
        "2 that follow from it bootstrap fleet on coreos-2 its API answers nothing unit unit blog.service" in seen.text
    )
    assert seen.text.count("that follow from it") == 1
    assert ("details", {"class": "wide"}) in seen.elements, "no `open`: it is folded"


def test_the_journal_stands_below_the_first_cause(log: Log) -> None:
    run_with_causes(log)
    text = page(log).text
    said = (
        f"what the journals say around it coreos-0 {clock(START - 0.5)} systemd[1]: Stopping "
        f"coreos-2 {clock(START + 0.25)} etcd[7]: no space left on device"
    )
    assert text.count("what the journals say") == 1 and said in text
    assert text.index("what the journals say") < text.index("contents of blog on coreos-1")
    log("journal", lines=[])
    assert "what the journals say" not in page(log).text


def test_where_nothing_failed_no_cause_is_told(log: Log) -> None:
    log.passes("Every unit runs", "Then it is so")
    log("causes", look=1, causes=[{"finding": finding()}])
    assert "What is wrong" not in page(log).text


def test_junit_of_a_failed_run(log: Log) -> None:
    failed_run(log)
    root = junit(log)
    assert [suite.get("name") for suite in root] == ["Infrastructure", "Blogs", "stages"]
    assert (root.get("tests"), root.get("failures"), root.get("errors"), root.get("skipped")) == ("5", "1", "0", "3")
    assert outcome(log, "The blog answers") == ("failure", f"Then it answers 200: {FAULT['message']}")
    failure = case(log, "The blog answers").find("failure")
    assert failure is not None and failure.get("type") == "WaitExpired"
    assert "seen: 502 Bad Gateway" in (failure.text or "") and "paste: curl -sv" in (failure.text or "")
    assert "line: features/blogs.feature:10: Then it answers 200\nlayer: discovery" in (failure.text or "")
    assert case(log, "The blog answers").get("time") == "31.000"
    properties = {p.get("name"): p.get("value") for p in root.findall("testsuite[@name='stages']/properties/property")}
    assert properties == {
        "run_id": "r1",
        "target": "local",
        "status": "1",
        "headline": "discovery is wrong",
        "terraform": "1.9.8",
        "machine": '{"cpus": 4}',
    }


def test_whether_a_scenario_is_a_failure_comes_from_the_kind_of_its_error(log: Log) -> None:
    for name, status in (("platform", 1), ("harness", 3), ("environment", 6)):
        log.plan(name, "Then 200")
        log.begin(name)
        log.end(name, 0, 1, {**FAULT, "status": status})
        log.over(name, "failed", FAULT["message"])
    assert [outcome(log, name)[0] for name in ("platform", "harness", "environment")] == ["failure", "error", "error"]


def test_screen_report_and_junit_name_the_same_faults(log: Log) -> None:
    failed_run(log)
    log.stage("teardown", "failed", error="the volume is in use", status=6)
    log("leak", what="volume", name="r1-var", removed=False)
    log.passes("The blog is fast", "Then it is fast", feature="Blogs")
    log.command("docker ps")
    run = log.run()
    verdict = judge(run)
    assert [fault.title.split()[0] for fault in verdict.faults] == ["The", "stage", "README,", "the"]
    on_screen = screen(run, verdict)
    assert "and 1 more fault: see the report" in on_screen, "it shows three"
    red = [child for child in junit(log).iter() if child.tag in ("failure", "error")]
    assert len(red) == len(verdict.faults)
    for number, fault in enumerate(verdict.faults):
        assert fault.title in page(log).text and f"last seen {fault.seen}" in page(log).text
        assert any(f"seen: {fault.seen}" in (child.text or "") for child in red)
        assert (f"seen       {fault.seen}" in on_screen) == (number < 3)


def test_scenario_that_was_not_run_and_nobody_says_why_is_an_error(log: Log) -> None:
    log.plan("The blog answers", "Then 200")
    assert outcome(log, "The blog answers") == ("error", "not run")
    assert "The blog answers · features/infrastructure.feature:8 expected run, or left out" in page(log).text


def test_error_around_the_steps_is_an_error_with_its_reason(log: Log) -> None:
    log.plan("The blog answers", "Then 200")
    log("scenario.started", id="The blog answers")
    log.recorder.within(scenario="The blog answers")
    log.command("terraform output -json", status=1)
    log.over("The blog answers", "error", "the fixture broke")
    assert outcome(log, "The blog answers") == ("error", "the fixture broke")
    text = page(log).text
    assert "around the steps: 1 command" in text and "the fixture broke" in text


@pytest.mark.parametrize("status", [*ExitStatus, 77, None])
def test_every_exit_status_has_a_verdict_and_only_0_is_green(log: Log, status: int | None) -> None:
    for stage in ("setup", "ground", "teardown"):
        log.stage(stage)
    log.passes("The machines are built", "Then it is so")
    if status is not None:
        log("run.ended", status=int(status), headline="")
    root = junit(log)
    green = root.get("failures") == root.get("errors") == "0"
    assert green == (status == 0)
    assert ("✓ Verified" in page(log).text) == (status == 0)
    assert "scenarios: 1 passed" in page(log).text


@pytest.mark.parametrize(
    ("removed", "said", "seen"),
    [(True, "removed afterwards", "now removed"), (False, "still there", "and it could not be removed")],
)
def test_leak_is_red_even_if_it_was_removed(log: Log, removed: bool, said: str, seen: str) -> None:
    log.stage("teardown")
    log("leak", what="volume", name="r1-var", removed=removed)
    log("run.ended", status=0, headline="verified")
    name = f"the teardown left something behind: volume r1-var, {seen}"
    assert outcome(log, name) == ("error", f"volume r1-var, {seen}")
    text = page(log).text
    assert said in text and f"last seen volume r1-var, {seen}" in text


def test_no_leaks_is_only_said_where_somebody_looked(log: Log) -> None:
    assert "Nobody looked" in page(log).text
    log.stage("teardown")
    assert "Nothing was left behind" in page(log).text


# -- hostile contents ------------------------------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}\x1b[31mred\x1b[0m\x00\x08\ufffe\ud800 ]]> `x"


def hostile_run(log: Log) -> dict[str, Any]:
    log("run.started", run_id=HOSTILE, target=HOSTILE, command=[HOSTILE], folder=HOSTILE)
    log("run.facts", **{HOSTILE: HOSTILE})
    log("task.started", task=HOSTILE)
    log("task.ended", task=HOSTILE, outcome="failed", seconds=1, error=HOSTILE)
    log.plan(HOSTILE, f"Then {HOSTILE}", feature="Blogs", tags=(HOSTILE,))
    log.begin(HOSTILE)
    log.command(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    log("exchange", method=HOSTILE, url=HOSTILE, error=HOSTILE, seconds=1, bytes=0)
    log("remote", machine=HOSTILE, command=HOSTILE, status=HOSTILE, seconds=1, stdout=HOSTILE, stderr=HOSTILE)
    log("wait.started", id="w", what=HOSTILE, within=1, hold_for=0)
    log("wait.seen", id="w", value=HOSTILE)
    change = {
        "what": HOSTILE,
        "after": 0.5,
        "made": 2,
        "failed": 1,
        "wrong": 0,
        "right_after": 1,
        "first_seen": HOSTILE,
    }
    log("traffic", site=HOSTILE, rate=20, bucket=0.5, right=[1], failed=[1], wrong=[0], changes=[change])
    log.end(HOSTILE, 0, 1, {**dict.fromkeys(FAULT, HOSTILE), "status": 1})
    log.over(HOSTILE, "failed", HOSTILE)
    told = {name: HOSTILE if isinstance(value, str) else value for name, value in finding().items()}
    log("causes", look=1, causes=[{"finding": told, "consequences": [told]}])
    log("journal", lines=[{"machine": HOSTILE, "time": START, "text": HOSTILE}])
    log("leak", what=HOSTILE, name=HOSTILE, removed=False)
    log("artefact", path=f"javascript:{HOSTILE}", about=HOSTILE)
    log("note", text=HOSTILE)
    log("run.ended", status=1, headline=HOSTILE)
    run = log.run()
    run["scenarios"][0]["feature"] = HOSTILE  # what the log's own encoding would have replaced
    run["headline"] = HOSTILE
    return run


def test_hostile_texts_are_texts(log: Log) -> None:
    source = render_html(hostile_run(log))
    seen = Page(source)
    assert "script" not in {tag for tag, _ in seen.elements}
    assert not any(name.startswith("on") for _, attributes in seen.elements for name in attributes)
    assert "<script>alert(1)</script>" in seen.text and "{{ 7*7 }}" in seen.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\ud800-\udfff]", source)
    assert "[31m" not in source
    links = [attributes["href"] or "" for tag, attributes in seen.elements if tag == "a"]
    assert all(link.startswith(("#", "./")) for link in links)
    source.encode("utf-8")


def test_hostile_texts_make_valid_xml(log: Log) -> None:
    source = junit_xml(hostile_run(log))
    root = ET.fromstring(source.encode("utf-8"))
    assert root[0][1].get("name") == "<script>alert(1)</script>\"'&{{ 7*7 }}red? ]]> `x"
    assert source.startswith('<?xml version="1.0" encoding="utf-8"?>')


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b[38:2::1:2:3mtrue colour\x1b[m\x1b[?25l\x1b[2K", "true colour"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07", "link"),
        ("\x1b]0;never closed\nnext", "\nnext"),
        ("\x1bP1$r\x1b\\a\x1b(Bb\x1b=c", "abc"),
        ("\x9b31mc1", "c1"),
        ("ends in the middle \x1b[", "ends in the middle "),
        ("10 %\r50 %\r100 %\ndone\r\n", "100 %\ndone\n"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("ö 日本 😀", "ö 日本 😀"),
        (None, ""),
        (404, "404"),
        ({"a": "ö"}, '{"a": "ö"}'),
    ],
)
def test_clean_leaves_what_a_terminal_would(raw: object, text: str) -> None:
    assert clean(raw) == text


@pytest.mark.parametrize("raw", ["\x1b" * 65_536, "\x1b]" * 32_768, "x\r" * 32_768, "x" * 65_536, "\x1b[0" * 20_000])
def test_clean_is_quick_on_any_output(raw: str) -> None:
    began = time.process_time()
    clean(raw)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0, "0.0 s"),
        (-1, "0.0 s"),
        (9.94, "9.9 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (83, "1 min 23 s"),
        (3599.6, "1 h 00 min"),
        (3720, "1 h 02 min"),
    ],
)
def test_took(seconds: float | None, text: str) -> None:
    assert took(seconds) == text


# -- what is shown ---------------------------------------------------------------------------------------------------


def test_doings_stand_below_the_step_they_belong_to(log: Log) -> None:
    killed_in_a_step(log)
    text = page(log).text
    first, second = text.index("When the operator types"), text.rindex("Then 3 machines run")
    assert first < text.index("1 command") < text.index("Apply complete!") < second < text.index("1 command, 1 wait")


def test_repeated_polls_are_one_line_with_a_count(log: Log) -> None:
    failed_run(log)
    text = page(log).text
    assert "1 remote command, 51 HTTP exchanges, 1 wait" in text
    assert text.count("GET") == 2
    assert "502 · 50 times" in text and "connection refused · 0.1 s" in text
    assert "machine-1 systemctl status 3 · 0.1 s" in text and "dead" in text


def test_wait_is_a_time_line_of_bounded_length(log: Log) -> None:
    failed_run(log)
    source = render_html(log.run())
    assert "within 30 s, for 2 s" in Page(source).text and "expired · 30.1 s" in Page(source).text
    assert '{"status": 502}' in Page(source).text
    widths = [float(width) for width in re.findall(r'<i style="width:([\d.]+)%', source)]
    assert len(widths) == 40 and sum(widths) <= 100


def test_what_was_done_outside_the_scenarios_stands_by_its_stage(log: Log) -> None:
    log("stage.started", stage="setup")
    log.command("mmdebstrap trixie")
    log("stage.ended", stage="setup", outcome="passed", seconds=1)
    log.passes("The machines are built", "Then it is so")
    assert "setup: 1 command $" not in page(log).text
    assert "setup: 1 command mmdebstrap trixie" in page(log).text


def test_long_output_is_cut_and_says_how_much(log: Log) -> None:
    log.plan("s", "When `x`")
    log.begin("s")
    log.command("x", "begin " + "y" * 60_000 + " end")
    log.end("s", 0)
    log.over("s")
    source = render_html(log.run())
    assert "begin yyy" in source and "yyy end" in source and "59,010 characters left out" in source
    assert len(source) < 40_000


def test_typical_run_is_small_and_quick(log: Log) -> None:
    for number in range(50):
        title = f"Scenario {number}"
        log.plan(title, *(f"Then claim {index}" for index in range(5)), feature=f"F{number // 6}")
        for index in range(5):
            log.begin(title, index)
            if index == 0:
                log.command("terraform apply", "docker_container.machine: Creating...\n" * 1_000)
            for _ in range(5):
                log("exchange", method="GET", url="http://hello.example/", status=200, seconds=0.1, bytes=9)
            log.end(title, index)
        log.over(title)
    began = time.process_time()
    assert len(render_html(log.run()).encode()) < 300_000
    assert time.process_time() - began < 2


def test_report_needs_nothing_but_itself(log: Log) -> None:
    failed_run(log)
    source = render_html(log.run())
    seen = Page(source)
    assert {"script", "link", "img", "iframe"}.isdisjoint(tag for tag, _ in seen.elements)
    assert not any("src" in attributes for _, attributes in seen.elements)
    assert "url(" not in source and "@import" not in source
    assert "prefers-color-scheme: dark" in source and "@media print" in source
    assert "./evidence/a%20b.journal" in source


def test_artefact_is_linked_from_the_runs_folder(log: Log) -> None:
    log("run.started", run_id="r1", target="local")
    log("artefact", path="/home/somebody/.runs/r1/snapshots/0001.json", about="look 1")
    log("artefact", path="evidence/x", about="x")

    links = [attributes["href"] for tag, attributes in page(log).elements if tag == "a" and attributes.get("href")]
    assert links[-2:] == ["./snapshots/0001.json", "./evidence/x"]


def test_report_is_a_pure_function(log: Log) -> None:
    failed_run(log)
    run = log.run()
    before = copy.deepcopy(run)
    assert render_html(run) == render_html(run)
    assert junit_xml(run) == junit_xml(run)
    assert run == before


def test_good_run_is_green_and_speaks_of_no_failure(log: Log) -> None:
    log("run.started", run_id="r1", target="local")
    for stage in ("setup", "ground", "runbook", "teardown"):
        log.stage(stage)
    log.passes("The machines are built", "When the operator types `terraform apply`")
    log("run.ended", status=0, headline="14 of 14 scenarios hold")
    seen = page(log)
    assert "✓ Verified 14 of 14 scenarios hold" in seen.text and "What went wrong" not in seen.text
    assert "2026-08-01 10:00:00 UTC" in seen.text
    assert seen.texts("header", "class", "passed")
    root = junit(log)
    assert (root.get("tests"), root.get("failures"), root.get("errors"), root.get("skipped")) == ("4", "0", "0", "0")
    assert root[0].get("timestamp") == "2026-08-01T10:00:08"
