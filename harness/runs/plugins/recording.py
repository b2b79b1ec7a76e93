"""What pytest-bdd does, written into the record."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from pytest_bdd.parser import Feature, Scenario, Step

from harness.errors import ExitStatus, HarnessError, PlatformWrong
from harness.record.log import NOTHING_CHOSEN, Recorder, Redactor
from harness.reports.runbook import Feature as Written
from harness.reports.runbook import Scenario as Claim
from harness.runs.plugins.choosing import UNPLANNED, Choosing, chooses_nothing, scenario_of, tags_of
from harness.runs.workplace import add_secrets


@pytest.hookimpl(trylast=True)  # who chooses is asked by then
def pytest_configure(config: pytest.Config) -> None:
    folder, workplace = os.environ.get("PLATFORM_FOLDER"), os.environ.get("PLATFORM_WORKPLACE")
    if folder and workplace:
        redact = Redactor()
        add_secrets(redact, Path(workplace))
        choosing = config.pluginmanager.get_plugin("choosing")
        assert isinstance(choosing, Choosing)
        recorder = Recorder(Path(folder) / "events.jsonl", redact)
        config.pluginmanager.register(Recording(recorder, choosing), "recording")


class Recording:
    """Writes scenarios and steps into the record, as they happen.

    A step is planned, started, ended. One that started and never ended stays interrupted: pytest-bdd calls no hook
    for a step that was skipped, exited or interrupted. Of a scenario pytest's own reports have the last word, but for
    "passed": that it did when each of its planned steps did.
    """

    def __init__(self, recorder: Recorder, choosing: Choosing) -> None:
        self.recorder = recorder
        self._choosing = choosing
        self._step_started = 0.0
        self._seconds: dict[str, float] = {}
        self._outcome: dict[str, tuple[str, str, dict[str, Any] | None]] = {}
        self._failed_step: BaseException | None = None
        self._to_pass: dict[str, set[int]] = {}  # the steps of each scenario that did not pass yet

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if UNPLANNED not in session.config.stash:
            return  # it was refused
        nothing = chooses_nothing(session.config, session.items)
        if nothing:
            self.recorder.emit("run.facts", **{NOTHING_CHOSEN: nothing})
        for item in session.items:
            scenario = scenario_of(item)
            self.recorder.emit(
                "scenario.planned",
                id=item.nodeid,
                feature=scenario.feature.rel_filename,
                feature_title=scenario.feature.name,
                title=scenario.name,
                line=scenario.line_number,
                tags=sorted(tags_of(item)),
                steps=[
                    {"keyword": step.keyword, "text": step.name, "line": step.line_number} for step in scenario.steps
                ],
            )
            self._to_pass[item.nodeid] = set(range(len(scenario.steps))) or {0}  # without a step it proves nothing
        for feature, claim in session.config.stash[UNPLANNED]:
            self._unplanned(feature, claim)

    def _unplanned(self, feature: Written, claim: Claim) -> None:
        """What the features' files hold and pytest passed over is no less wrong than what failed."""
        name = self.recorder.new_id(f"{feature.path}:{claim.line}")
        steps = [{"keyword": it.keyword, "text": it.text, "line": claim.line} for it in claim.steps]
        about = {"feature": feature.path, "feature_title": feature.title, "title": claim.title, "line": claim.line}
        self.recorder.emit("scenario.planned", id=name, **about, tags=[], steps=steps)
        error = HarnessError("it stands in the features, and pytest did not collect it")
        self.recorder.emit("scenario.ended", id=name, outcome="error", reason="", error=_described(error), seconds=0.0)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if not self._choosing.broken_by and not self._choosing.leaves_out(nodeid):  # those are not started
            self.recorder.emit("scenario.started", id=nodeid)
            self.recorder.within(scenario=nodeid)

    def pytest_bdd_before_step(self, request: pytest.FixtureRequest, scenario: Scenario, step: Step) -> None:
        index = scenario.steps.index(step)
        self._step_started = time.monotonic()
        self.recorder.emit("step.started", id=request.node.nodeid, index=index)
        self.recorder.within(step=index)

    def pytest_bdd_after_step(self, request: pytest.FixtureRequest, scenario: Scenario, step: Step) -> None:
        self._step_ended(request, scenario, step, "passed", None)

    def pytest_bdd_step_error(
        self, request: pytest.FixtureRequest, scenario: Scenario, step: Step, exception: BaseException
    ) -> None:
        self._failed_step = exception
        self._step_ended(request, scenario, step, "failed", exception)
        line = f"{scenario.feature.rel_filename}:{step.line_number}: {step.keyword} {step.name}"
        request.node.add_report_section("call", "Gherkin", line)

    def pytest_bdd_step_func_lookup_error(
        self, request: pytest.FixtureRequest, feature: Feature, scenario: Scenario, step: Step, exception: Exception
    ) -> None:
        self._step_started = time.monotonic()
        self.recorder.emit("step.started", id=request.node.nodeid, index=scenario.steps.index(step))
        self.pytest_bdd_step_error(request, scenario, step, exception)

    def _step_ended(
        self,
        request: pytest.FixtureRequest,
        scenario: Scenario,
        step: Step,
        outcome: str,
        error: BaseException | None,
    ) -> None:
        self.recorder.emit(
            "step.ended",
            id=request.node.nodeid,
            index=scenario.steps.index(step),
            outcome=outcome,
            error=_described(error),
            seconds=round(time.monotonic() - self._step_started, 3),
        )
        if outcome == "passed":
            self._to_pass[request.node.nodeid].discard(scenario.steps.index(step))
        self.recorder.within(step=None)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        outcome = {"passed": "passed", "skipped": "not_run", "failed": "failed" if call.when == "call" else "error"}
        before = self._outcome.get(item.nodeid, ("passed", "", None))
        if report.outcome != "passed" and before[0] == "passed":
            raised = call.excinfo.value if call.excinfo else None
            error = _described(raised) if report.failed and raised is not self._failed_step else None
            before = (outcome[report.outcome], str(raised), error)
        self._outcome[item.nodeid] = before
        self._seconds[item.nodeid] = self._seconds.get(item.nodeid, 0.0) + report.duration
        return report

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        outcome, reason, error = self._outcome.get(nodeid, ("error", "pytest gave no report", None))
        if outcome == "passed" and self._to_pass[nodeid]:
            error = _described(HarnessError("pytest calls it passed, and not all of its steps were executed"))
            outcome = "error"
        self.recorder.emit(
            "scenario.ended",
            id=nodeid,
            outcome=outcome,
            reason=reason,
            error=error,
            seconds=round(self._seconds.get(nodeid, 0.0), 3),
        )
        self.recorder.within(scenario=None, step=None)


@pytest.fixture(scope="session")
def recorder(request: pytest.FixtureRequest) -> Recorder:
    """The record of this run, for the drivers."""
    recording = request.config.pluginmanager.get_plugin("recording")
    if not isinstance(recording, Recording):
        raise pytest.UsageError("the features run through `make acceptance` (or bin/platform acceptance)")
    return recording.recorder


def _described(error: BaseException | None) -> dict[str, Any] | None:
    """An error as the record keeps it: its kind, the exit status that goes with it, and one line for each question."""
    if error is None:
        return None
    status = ExitStatus.INTERNAL_ERROR
    if isinstance(error, HarnessError):
        status = error.status
    elif isinstance(error, AssertionError):
        status = ExitStatus.PLATFORM_WRONG
    wrong = error if isinstance(error, PlatformWrong) else PlatformWrong("")
    return {
        "kind": type(error).__name__,
        "status": int(status),
        "message": str(error),
        "expected": wrong.expected,
        "seen": wrong.seen,
        "where": wrong.where,
        "paste": wrong.paste,
        "layer": getattr(error, "layer", ""),
    }
