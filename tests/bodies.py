"""What stands in the place of pytest in the tests of runs: it does in a moment what the features would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.runs.execution import Execution

Body = Callable[[Execution], object]

PLANNED: dict[str, Any] = {
    "feature": "features/06_start.feature", "feature_title": "6. Start", "title": "a", "line": 8, "tags": ["start"],
    "steps": [{"keyword": "Then", "text": "every unit is active", "line": 9}],
}  # fmt: skip


def raises(error: BaseException) -> Callable[..., None]:
    def fail(*arguments: object) -> None:
        raise error

    return fail


def passes(execution: Execution) -> None:
    scenario(execution, "passed")


def fails(execution: Execution) -> None:
    scenario(execution, "failed")


def scenario(execution: Execution, outcome: str) -> None:
    recorder = execution.run.recorder
    error = {
        "kind": "PlatformWrong",
        "status": 1,
        "message": "no",
        "expected": "",
        "seen": "",
        "where": "",
        "paste": "",
    }
    recorder.emit("command.started", id="c", argv=None, line="true", cwd="/", environment=[], typed=True)
    recorder.emit("command.ended", id="c", status=0, seconds=0, stdout="", stderr="")
    recorder.emit("scenario.planned", id="a", **PLANNED)
    recorder.emit("scenario.started", id="a")
    recorder.emit("scenario.ended", id="a", outcome=outcome, reason="", seconds=1, error=error)
