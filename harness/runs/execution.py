"""One execution of features on a cluster: with its display, its record and its verdict."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from harness import files
from harness.drivers.cluster import Cluster, Connections
from harness.drivers.terraform import Outputs
from harness.errors import ExitStatus, HarnessError, Misconfigured, PlatformWrong
from harness.record.log import TIME_LIMITS, fold, read_events
from harness.reports import runbook, verdict
from harness.reports.display import Display
from harness.reports.html import looks_shown, render_html
from harness.reports.junit import junit_xml
from harness.reports.measures import measured
from harness.runs.faults import Seeding, is_left_over
from harness.runs.interrupts import Interrupts
from harness.runs.run import Run
from harness.runs.watch import recorded
from harness.runs.workplace import OUTPUTS, Workplace
from harness.seams.patience import patience
from harness.seams.process import Processes
from harness.seams.surroundings import cleaned
from harness.setup.cache import Cache, cache_folder
from harness.setup.toolchain import Toolchain

# pytest's own exit statuses: all passed, some failed, nothing collected
ANSWERS_OF_PYTEST = (0, 1, 5)
USAGE_OF_PYTEST = 4
END_LIMIT = 30.0
# Seconds that all scenarios together may take. Each step has a limit of its own, and the sum of them has none.
RUNBOOK_LIMIT = 3600.0
READ_ONLY_LIMIT = 900.0
# Seconds for the last lines of pytest's output, whose pipe a process that it left may hold open
LOG_LIMIT = 5.0


class Execution:
    """Runs features as a run of its own, on the cluster of a workplace."""

    def __init__(self, run: Run, target: str, command: Sequence[str], workplace: Workplace) -> None:
        self.run = run
        self.workplace = workplace
        self.target = target
        self.console = Console(stderr=True)
        # a starter of its own: an interrupt ends set-up's commands for good, and those of the teardown must still start
        process, recorder = Processes(run.recorder), run.recorder
        cache = Cache(cache_folder())
        self.toolchain = Toolchain(run.root, cache, process, recorder, run.waiter, process.end_all)
        self._command = list(command)

    def begin(self, selection: Sequence[str] | None = None) -> None:
        """The first line of the record."""
        recorder, readme = self.run.recorder, (self.run.root / "README.md").read_text()
        recorder.emit(
            "run.started",
            run_id=self.run.run_id,
            target=self.target,
            cluster=None if (self.run.folder / OUTPUTS).exists() else self.workplace.run_id,
            command=self._command,
            folder=os.path.relpath(self.run.folder),
            readme=runbook.commands_of_readme(readme),
            remedies=runbook.remedies(readme),
            selection=list(selection) if selection else None,
        )
        if patience() > 1:
            recorder.emit("run.facts", **{TIME_LIMITS: f"{patience():g} times as long as the runbook promises"})
        began = os.environ.get("PLATFORM_BEGAN")
        if began:
            recorder.emit("run.facts", **{"seconds before the record": f"{time.time() - float(began):.2f}"})

    @contextmanager
    def shown(self, quiet: bool = False) -> Iterator[None]:
        """Shows the record as it grows, unless `quiet`."""
        if quiet:
            yield
            return
        display = Display(self.run.folder / "events.jsonl", self.console, after=self.run.began_at)
        display.start()
        try:
            yield
        finally:
            display.stop()

    def features(self, selection: Sequence[str] = (), *, read_only: bool = False) -> None:
        """Executes the features that are selected, in pytest's own words (all, if none is).

        Raises PlatformWrong when they have no end within their limit: every step has one, all of them together would
        not.
        """
        variables = {
            "PLATFORM_FOLDER": str(self.run.folder),
            "PLATFORM_WORKPLACE": str(self.workplace.folder),
            "PLATFORM_RUN": self.run.run_id,
        }
        chosen = [*selection, *(["--read-only"] if read_only else [])]
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(self.run.root)]
        argv += chosen if _names_tests(chosen) else ["features", *chosen]
        limit = (READ_ONLY_LIMIT if read_only else RUNBOOK_LIMIT) * patience()
        log = self.run.folder / "pytest.log"
        with self.run.stage("runbook"):
            status = _pytest(argv, self.run.root, cleaned(os.environ) | variables, log, self.run.redact, limit)
            # one that breaks while it starts ends with 1 too
            if status not in ANSWERS_OF_PYTEST or (status == 1 and not self.document()["scenarios"]):
                raise _unusable(status, log.read_text().strip().splitlines())

    def undo_left_over(self) -> None:
        """Mends what a drill that was killed had broken."""
        outputs = self.outputs() if is_left_over(self.workplace.folder) else None
        if outputs is None:
            return
        with Connections(self.run.recorder) as connections:
            cluster = Cluster(lambda: outputs, connections, self.run.process)
            name = Seeding(self.workplace.folder, cluster, self.workplace.shell, self.run.process).undo_noted()
        self.run.recorder.emit("note", text=f"{name}, which a drill had seeded and not undone, is undone")

    def judged(self) -> verdict.Verdict:
        """The verdict of the record so far; of one that could not be written whole nothing can be said."""
        judged = verdict.judge(self.document())
        lost = self.run.recorder.lost
        failed = ExitStatus.ENVIRONMENT_FAILED
        headline = f"The environment failed: the record could not be written ({lost})"
        return dataclasses.replace(judged, status=failed, headline=headline) if lost else judged

    def document(self) -> dict[str, Any]:
        return fold(read_events(self.run.folder / "events.jsonl"))

    def outputs(self) -> Outputs | None:
        """What the target says of itself; None before anything was applied."""
        given = self.run.folder / OUTPUTS
        if given.exists():
            return Outputs.read(files.read_object(given))
        terraform = self.workplace.terraform()
        return terraform.outputs() if terraform.has_state() else None

    def close(self) -> verdict.Verdict:
        """Ends the record with its verdict, and writes what is made from it."""
        judged = self.judged()
        self.run.recorder.emit("run.ended", status=int(judged.status), headline=judged.headline)
        self.run.recorder.close()
        try:
            write_record(self.run.folder)
        except OSError as refused:
            self.run.recorder.lost = refused.strerror or str(refused)
        return self.judged()


def write_record(folder: Path) -> dict[str, Any]:
    """Writes run.json, report.html and junit.xml of a run folder from its event log, and its snapshots."""
    document = fold(read_events(folder / "events.jsonl"))
    document["measures"] = [dataclasses.asdict(measure) for measure in measured(document)]
    files.put(folder / "run.json", json.dumps(document, indent=1, ensure_ascii=False))
    snapshots = {number: recorded(folder, number) for number in looks_shown(document)}
    files.put(folder / "report.html", render_html(document, snapshots))
    files.put(folder / "junit.xml", junit_xml(document))
    return document


def _names_tests(selection: Sequence[str]) -> bool:
    """Whether it says by itself what pytest is to collect. (A line of a feature is no path: with nothing but that
    pytest would look for tests elsewhere.)"""
    return any(word.startswith("features/") and ".feature" not in word for word in selection)


def _unusable(status: int, lines: list[str]) -> HarnessError:
    """pytest could not do what it was asked: its usage is the person's, all else ours."""
    errors = [
        found[1] for line in lines if (found := re.match(r"(?:ERROR: (?:Exit: )?|.*: error: )(?!usage: )(.*)", line))
    ]
    if status == USAGE_OF_PYTEST:
        reason = (errors or lines[-1:] or ["no output"])[-1]
        of_features = reason.startswith("features/")  # they are wrong whatever was selected
        return Misconfigured(reason if of_features else f"this selection cannot be run: {reason}")
    return HarnessError(f"pytest ended with status {status}: {' / '.join(lines[-3:])} (see pytest.log)")


def _pytest(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str], log: Path, redact: Callable[[str], str], limit: float
) -> int:
    """Its exit status; what it prints goes into `log`, redacted, for its owner's eyes only.

    Raises PlatformWrong when it has no end within `limit` seconds. However this ends, pytest has ended.
    """
    log.touch(mode=0o600)
    process: subprocess.Popen[str] | None = None
    try:
        with Interrupts.held():
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            assert process.stdout is not None
            copying = threading.Thread(target=_copy, args=(process.stdout, log, redact), daemon=True)
            copying.start()
        status = process.wait(limit)
        copying.join(LOG_LIMIT)
        return status
    except subprocess.TimeoutExpired:
        raise PlatformWrong(
            f"the features did not end within {limit:g} s",
            expected=f"an end within {limit:g} s",
            seen="still under way",
        ) from None
    finally:
        if process is not None:
            _end(process)


def _copy(output: TextIO, log: Path, redact: Callable[[str], str]) -> None:
    with output, log.open("w", encoding="utf-8") as file:
        for line in output:
            file.write(redact(line))
            file.flush()


def _end(process: subprocess.Popen[str]) -> None:
    """Interrupts pytest, so that it ends its step and its commands in order; then insists."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(END_LIMIT)
    except subprocess.TimeoutExpired:
        pass
    finally:  # a Ctrl-C must not leave it behind
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
