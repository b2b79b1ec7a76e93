"""Lines that are printed are typed, and mend: soon, and with no request that fails where none failed before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.drivers.site import Page
from harness.errors import CommandFailed, HarnessError
from harness.record.log import Recorder
from harness.runs import mending
from harness.runs.mending import lines_of, mend
from harness.seams.http import SiteUnreachable

LINE = "ssh -F ssh_config coreos-1 'sudo systemctl restart entry.service'"
SECTION = "README, Recovery 2: make the machine again"


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    kept = Recorder(tmp_path / "events.jsonl")
    yield kept
    kept.close()


class Shown:
    """A cluster of two entry points: which of them answer, and what typing a line does to that."""

    def __init__(self, recorder: Recorder, patched: pytest.MonkeyPatch, *silent: str) -> None:
        patched.setattr(mending, "request_to", self.request_to)
        patched.setattr(mending, "RATE", 100)
        self.silent = set(silent)
        self.typed: list[str] = []
        self.refused: list[str] = []
        self.does: Callable[[], object] = lambda: None
        self.status = 0
        outputs = SimpleNamespace(sites={"blog": "x.example"}, entry_points=("coreos-0", "coreos-1"))
        self.machines = SimpleNamespace(addresses={name: name for name in outputs.entry_points})
        self.outputs, self.recorder = outputs, recorder
        self.cluster = self.shell = self

    def request_to(self, site: str, domain: str, where: Callable[[], str]) -> Callable[[], Page]:
        def ask() -> Page:
            if where() in self.silent:
                self.refused.append(where())
                raise SiteUnreachable(f"http://{domain}/ is refused")
            return Page(f"http://{domain}/version.txt", 200, "text/plain", b"v1")

        return ask

    def type(self, line: str, within: float, ok: None) -> Any:
        self.typed.append(line)
        self.does()
        return SimpleNamespace(status=self.status, stderr="no such unit\n")


@pytest.mark.parametrize(
    ("repairs", "lines"),
    [((LINE,), (LINE,)), ((LINE, "b"), (LINE, "b")), ((LINE, SECTION), ()), ((SECTION,), ()), (("",), ()), ((), ())],
)
def test_lines_are_typed_where_each_cause_has_one(repairs: tuple[str, ...], lines: tuple[str, ...]) -> None:
    assert lines_of({"causes": [{"finding": {"repair": repair}} for repair in repairs]}) == lines
    assert lines_of({"causes": [{"finding": {}}]}) == ()


def test_all_is_green_at_last(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, statuses = Shown(recorder, monkeypatch, "coreos-1"), iter([1, 6, 0])
    shown.does = shown.silent.clear

    found = mend(shown, (LINE, "b"), lambda: next(statuses))  # type: ignore[arg-type]

    assert (found.lines, found.wrong, shown.typed) == ((LINE, "b"), "", [LINE, "b"]) and found.seconds > 0


def test_requests_that_fail_where_some_failed_before_are_the_faults(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Shown(recorder, monkeypatch, "coreos-1")

    assert mend(shown, (LINE,), lambda: 0).wrong == ""  # type: ignore[arg-type]


def test_requests_that_fail_because_of_it_are_told(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown(recorder, monkeypatch, "coreos-1")
    shown.does = lambda: shown.silent.add("coreos-0")

    wrong = mend(shown, (LINE,), lambda: int("coreos-0" not in shown.refused)).wrong  # type: ignore[arg-type]
    assert wrong.startswith("requests failed that had not failed before: ") and "to blog through coreos-0" in wrong
    assert "coreos-1" not in wrong


def test_cluster_that_does_not_become_green_is_not_mended(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending, "MENDED_WITHIN", 0.05)

    assert mend(Shown(recorder, monkeypatch), (LINE,), lambda: 1).wrong == "not green within 0.05 s"  # type: ignore[arg-type]


def test_line_that_fails_is_the_last_one(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown(recorder, monkeypatch)
    shown.status = 5

    wrong = mend(shown, (LINE, "b"), lambda: 0).wrong  # type: ignore[arg-type]
    assert wrong == f"`{LINE}` ended with status 5: no such unit" and shown.typed == [LINE]


def test_line_that_cannot_be_typed_says_why(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown(recorder, monkeypatch)
    failed: HarnessError = CommandFailed(["ssh"], "", "", "", "did not end within 60 s")

    def fail() -> None:
        raise failed

    shown.does = fail
    assert mend(shown, (LINE,), lambda: 0).wrong == str(failed)  # type: ignore[arg-type]
