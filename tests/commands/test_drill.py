"""The drill: what counts as named rightly, and the score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.commands import drill as module
from harness.commands.drill import Outcome, drill, listed, score
from harness.errors import CommandFailed, ExitStatus, HarnessError, Misconfigured, PlatformWrong
from harness.runs.faults import FOR_DRILLS, Fault, Seeded
from harness.runs.mending import Mending
from harness.runs.workplace import SHELL_STATE

FAULT = Fault("etcd-stopped", "bootstrap", "coreos-1", "stop", "start", "system-unit-runs", "etcd on coreos-1")
GREEN: dict[str, Any] = {"status": 0, "causes": []}


def red(*causes: tuple[str, str], status: int = 1) -> dict[str, Any]:
    return {"status": status, "causes": [{"finding": {"rule": rule, "about": about}} for rule, about in causes]}


class FakeSeeding:
    means = SimpleNamespace(lack=lambda fault: "")

    def __init__(self, raises: BaseException | None = None) -> None:
        self.raises = raises

    @contextmanager
    def injected(self, fault: Fault) -> Iterator[Seeded]:
        if self.raises is not None:
            raise self.raises
        yield Seeded(fault.name, ("coreos-1",), fault.undo, fault.subject)


def tried(
    *nightlies: dict[str, Any] | HarnessError, fault: Fault = FAULT, seconds: float = 12, seeding: Any = None
) -> Outcome:
    answers = iter([*nightlies, GREEN])

    def nightly() -> tuple[dict[str, Any], float]:
        if isinstance(answer := next(answers), HarnessError):
            raise answer
        return answer, seconds

    return module._tried(seeding or FakeSeeding(), fault, nightly)


RIGHT = ("system-unit-runs", "etcd on coreos-1")


def test_fault_that_is_named_first_and_alone_is_good() -> None:
    outcome = tried(red(RIGHT))

    assert outcome.good and outcome.caught and outcome.right and outcome.green_again
    assert str(outcome).startswith("✓ etcd-stopped") and "system-unit-runs: etcd on coreos-1" in str(outcome)


@pytest.mark.parametrize(
    ("nightly", "said"),
    [
        (GREEN, "missed"),
        (red(("unit-runs", "unit x")), "not named: system-unit-runs: etcd on coreos-1"),
        (red(("unit-runs", "unit x"), RIGHT), "not named: system-unit-runs: etcd on coreos-1"),
        (red(RIGHT, ("unit-runs", "unit x")), "named as well: unit-runs: unit x"),
        (red(RIGHT, status=6), "not named"),
        ({**red(status=3), "headline": "Traceback"}, "Traceback"),
    ],
)
def test_fault_that_is_not_named_rightly(nightly: dict[str, Any], said: str) -> None:
    outcome = tried(nightly)

    assert not outcome.good and said in str(outcome) and str(outcome).startswith("✗")


def test_fault_that_is_named_late() -> None:
    outcome = tried(red(RIGHT), seconds=20.5)

    assert outcome.right and not outcome.good and "late: 20 s" in str(outcome)


def test_causes_that_a_fault_is_to_bring_are_no_others() -> None:
    fault = Fault("two", "bootstrap", "operator", "a", "b", *RIGHT, others=("system-unit-runs: etcd on coreos-2",))

    assert tried(red(RIGHT, ("system-unit-runs", "etcd on coreos-2")), fault=fault).good


def test_cluster_that_takes_a_while_is_green_again() -> None:
    assert tried(red(RIGHT), red(RIGHT), red(RIGHT)).green_again


LINE = "ssh -F ssh_config coreos-1 'sudo systemctl start etcd'"


def printed(*repairs: str) -> dict[str, Any]:
    document = red(*[RIGHT] * len(repairs))
    for cause, repair in zip(document["causes"], repairs, strict=True):
        cause["finding"]["repair"] = repair
    return document


@pytest.mark.parametrize(
    ("wrong", "said"), [("", "mended in 3.0 s"), ("not green within 60 s", "not mended: not green within 60 s")]
)
def test_line_that_was_printed_has_to_mend(monkeypatch: pytest.MonkeyPatch, wrong: str, said: str) -> None:
    asked = []

    def mend(seeding: Any, lines: tuple[str, ...], status: Any) -> Mending:
        asked.append((lines, status()))
        return Mending(lines, 3.0, wrong)

    monkeypatch.setattr(module, "mend", mend)
    outcome = tried(printed(LINE), GREEN)

    assert asked == [((LINE,), 0)]
    assert (
        (outcome.good, outcome.mended) == (not wrong, not wrong)
        and f"$ {LINE}" in str(outcome)
        and said in str(outcome)
    )
    assert score([outcome, tried(red(RIGHT))]).split()[-3:] == ["0" if wrong else "1", "of", "1"]


@pytest.mark.parametrize("repairs", [("",), ("README, Recovery 2: make it again",), (LINE, "README, Recovery 9: x")])
def test_nothing_is_typed_where_a_section_says_what_to_do(repairs: tuple[str, ...]) -> None:
    # what is not typed needs no cluster
    outcome = tried(printed(*repairs), GREEN)

    assert outcome.mending is None and not outcome.mended and outcome.right


def test_fault_that_cannot_be_seeded_is_told() -> None:
    outcome = tried(seeding=FakeSeeding(CommandFailed(["stop"], 1, "", "no such unit")))

    assert not outcome.good and not outcome.caught and "it could not be seeded: " in str(outcome)


NO_END = PlatformWrong("command `bin/platform nightly` did not end within 180 s: no output")


@pytest.mark.parametrize(
    ("nightlies", "green_again", "said"),
    [
        pytest.param([NO_END], True, "it could not be judged: command", id="while the fault lasts"),
        pytest.param([red(RIGHT), NO_END], False, "not green again\n    command", id="when it is undone"),
        pytest.param([NO_END, NO_END], False, "it could not be judged: command", id="each time"),
    ],
)
def test_drill_goes_on_after_a_nightly_without_an_end(nightlies: list[Any], green_again: bool, said: str) -> None:
    outcome = tried(*nightlies)

    assert not outcome.good and outcome.green_again is green_again
    assert said in str(outcome) and "did not end within 180 s" in str(outcome)


def test_nightly_without_an_end_is_not_green_where_lines_are_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(module, "mend", lambda seeding, lines, status: Mending(lines, 1.0, str(seen.append(status()))))

    assert not tried(printed(LINE), NO_END).good and seen == [ExitStatus.INTERNAL_ERROR]


@pytest.mark.parametrize("ended", [KeyboardInterrupt(), NO_END])
def test_score_is_printed_however_a_drill_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ended: BaseException
) -> None:
    folder = tmp_path / ".runs/20260801-120000-ab12"
    folder.mkdir(parents=True)
    for name in ("events.jsonl", SHELL_STATE, FOR_DRILLS):
        (folder / name).touch()

    def drilled(root: Path, folder: Path, faults: Any, outcomes: list[Outcome]) -> None:
        outcomes.append(tried(red(RIGHT)))
        raise ended

    monkeypatch.setattr(module, "_drilled", drilled)

    with pytest.raises(type(ended)):
        drill(tmp_path, [FAULT], folder.name, keep=False, target="local")
    assert capsys.readouterr().err.split()[9:14] == ["bootstrap", "1", "1", "1", "0"]


def test_score_is_kept_by_layer() -> None:
    unit = Fault("a", "unit", "coreos-0", "a", "b", "unit-runs", "unit a")
    lines = score([tried(red(RIGHT)), tried(GREEN), tried(red(("unit-runs", "unit a")), fault=unit)]).split("\n")

    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["layer"] == ["faults", "caught", "named", "late", "missed", "others", "slowest", "mended"]
    assert rows["bootstrap"][:6] == ["2", "1", "1", "0", "1", "0"]
    assert rows["unit"][:6] == ["1", "1", "1", "0", "0", "0"]
    assert rows["all"][:6] == ["3", "2", "2", "0", "1", "0"]


def test_faults_are_listed_with_what_is_to_be_named() -> None:
    assert listed([FAULT]).split() == ["bootstrap", "etcd-stopped", "system-unit-runs:", "etcd", "on", "coreos-1"]


def test_cluster_that_was_not_built_for_drills_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / ".runs/20260801-120000-ab12"
    folder.mkdir(parents=True)
    for name in ("events.jsonl", SHELL_STATE):
        (folder / name).touch()

    with pytest.raises(Misconfigured, match="was not built for drills"):
        drill(tmp_path, [FAULT], "20260801-120000-ab12", keep=False, target="local")
    with pytest.raises(Misconfigured, match="there is no run 20260801-120000-ab13: did you mean"):
        drill(tmp_path, [FAULT], "20260801-120000-ab13", keep=False, target="local")


def test_drill_that_could_seed_nothing_has_verified_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ".runs/20260801-120000-ab12"
    folder.mkdir(parents=True)
    for name in ("events.jsonl", SHELL_STATE, FOR_DRILLS):
        (folder / name).touch()
    monkeypatch.setattr(module, "_drilled", lambda *told: None)

    assert drill(tmp_path, [FAULT], folder.name, keep=False, target="local") == ExitStatus.NOTHING_VERIFIED
