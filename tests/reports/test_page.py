"""The runbook as a page: above all what is missing, wrong, changed, or would break out of its place."""

from __future__ import annotations

import copy
import errno
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from harness.errors import EnvironmentFailed, ExitStatus, Misconfigured
from harness.record.log import fold
from harness.reports.page import MOST_RUNS, html, page, write_page
from harness.reports.runbook import (
    SECTIONS,
    Block,
    Feature,
    Scenario,
    Section,
    Step,
    commands_of_readme,
    feature,
    read_features,
    sections,
)
from harness.text import clean, one_line

ROOT = Path(__file__).resolve().parent.parent.parent
START = 1_785_578_400.0  # 2026-08-01 10:00 UTC
README = """# Cluster

A small cluster.

## Prerequisites

- It has `core`.

## Operation

Type as it stands.

1. Prepare variables

   ```
   $ cp example.tfvars terraform.tfvars
   ```

2. Build the machines: all of them

   ```
   $ terraform plan
   $ # Examine the output
   $ terraform apply
   ```

## Every day

Look at `report.html`.

| room | what it holds |
| --- | --- |
| `steps/` | words |

## TODO

- Some day

## Resources

- [A page](https://a.example/)
"""
VARIABLES = "Feature: 1. Prepare variables\n  The operator copies.\n\n  Scenario: The example is copied\n"
VARIABLES += "    When the operator runs `cp example.tfvars terraform.tfvars`\n    Then it is there\n"
MACHINES = "Feature: 2. Build the machines\n\n  Scenario: Every machine runs\n"
MACHINES += "    When the operator runs `terraform plan`\n    And the operator runs `terraform apply`\n"
MACHINES += (
    '    Then every machine runs within 60 seconds\n\n  Scenario: A second plan is empty\n    Then it is "empty"\n'
)
FAULT = {
    "kind": "WaitExpired",
    "status": 1,
    "message": "not within 60 s",
    "expected": "3 machines",
    "seen": "2 machines",
    "where": "coreos-0",
    "paste": "fleetctl list-machines",
}


def features() -> list[Feature]:
    return [feature("features/01_variables.feature", VARIABLES), feature("features/02_machines.feature", MACHINES)]


def one(text: str) -> Feature:
    return feature("features/01_variables.feature", text)


def ran(about: Feature, outcome: str = "passed", number: int = 0, **fields: Any) -> dict[str, Any]:
    """What a run did with a scenario of this feature, for `record`."""
    scenario = about.scenarios[number]
    steps = [{"keyword": it.keyword, "text": it.text, "line": 5 + i} for i, it in enumerate(scenario.steps)]
    known = {"feature": about.path, "feature_title": about.title, "title": scenario.title, "line": 4, "steps": steps}
    return {**known, "tags": [], "outcome": outcome, "reason": "", "error": None, "seconds": 1.5, **fields}


def record(run_id: str, *scenarios: dict[str, Any], commands: Sequence[dict[str, Any]] = (), **about: Any) -> Any:
    """The document of a run, made as every run's is: events, folded. Later ids are later runs."""
    day = re.search(r"[0-9]{1,3}$", run_id)
    now = START + 86_400 * int(day[0] if day else 0)
    events: list[dict[str, Any]] = [{"kind": "run.started", "run_id": run_id, "target": "local", "selection": None}]
    for number, scenario in enumerate(scenarios):
        name, outcome = str(number), scenario["outcome"]
        planned = {key: scenario[key] for key in ("feature", "feature_title", "title", "line", "tags", "steps")}
        events.append({"kind": "scenario.planned", "id": name, **planned})
        if outcome != "not_run":
            events.append({"kind": "scenario.started", "id": name})
        if scenario["error"]:
            events.append({"kind": "step.started", "id": name, "index": 0})
            ended = {"outcome": "failed", "error": scenario["error"], "seconds": 1}
            events.append({"kind": "step.ended", "id": name, "index": 0, **ended})
        if outcome != "interrupted":
            ended = {"outcome": outcome, "reason": scenario["reason"], "seconds": scenario["seconds"]}
            events.append({"kind": "scenario.ended", "id": name, **ended})
    for number, command in enumerate(commands):
        name = f"c{number}"
        events.append({"kind": "command.started", "id": name, "typed": True, "argv": None, "line": command["line"]})
        if command.get("status") is not None:
            said = {"stdout": "", "stderr": "", "seconds": 0.5, **command}
            events.append({"kind": "command.ended", "id": name, **said})
    events.append({"kind": "run.ended", "status": 0, "headline": "Verified: as the runbook says", **about})
    return fold({"t": now, **event} for event in events)


def typed(*lines: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"line": line, "status": 0, **fields} for line in lines]


def good_run(run_id: str = "run-1") -> Any:
    variables, machines = features()
    commands = typed("cp example.tfvars terraform.tfvars", "terraform plan", "terraform apply", stdout="done\n")
    return record(run_id, ran(variables), ran(machines), ran(machines, number=1), commands=commands)


def part(markdown: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its rank."""
    rank = heading.split()[0]
    found = markdown[markdown.index(f"\n{heading}\n") + len(heading) + 2 :]
    return re.split(rf"\n#{{1,{len(rank)}}} ", found)[0]


class Seen(HTMLParser):
    """A page as its reader has it: text, and elements with their class; every element must be closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text = ""
        self.elements: list[tuple[str, str]] = []
        self.attributes: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs).get("class") or ""))
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "br", "hr", "img", "link", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open and "nav" not in self._open:
            self.text += data

    def all(self, name: str) -> list[str]:
        return [value for attribute, value in self.attributes if attribute == name]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "features").mkdir(parents=True)
    (root / "README.md").write_text(README)
    (root / "features/01_variables.feature").write_text(VARIABLES)
    (root / "features/02_machines.feature").write_text(MACHINES)
    return root


def keep(root: Path, run: Any, folder: str | None = None) -> Path:
    path = root / ".runs" / (folder or run["run_id"]) / "run.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(run))
    return path


# -- what cannot be written ------------------------------------------------------------------------------------------


def test_a_checkout_without_a_readme_has_no_page(checkout: Path) -> None:
    (checkout / "README.md").unlink()
    with pytest.raises(Misconfigured, match=r"README\.md is missing: it is the runbook") as refused:
        write_page(checkout)
    assert refused.value.status is ExitStatus.MISCONFIGURED
    assert not (checkout / ".runs").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"# Only a title\n", "README.md has no section Operation"),
        (b"## Operation\n\n```\n$ ls\n", r"README\.md:3: this code block is never closed"),
        (b"## Operation\n\xff\n", "README.md is not UTF-8"),
    ],
)
def test_a_readme_that_is_no_runbook_is_refused(checkout: Path, text: bytes, said: str) -> None:
    (checkout / "README.md").write_bytes(text)
    with pytest.raises(Misconfigured, match=said):
        write_page(checkout)


def test_a_checkout_without_features_has_no_page(checkout: Path) -> None:
    for path in (checkout / "features").iterdir():
        path.unlink()
    with pytest.raises(Misconfigured, match=r"features holds no \*\.feature"):
        write_page(checkout)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Feature: x\n  Scenario: a\n    When y\n    nonsense\n",
            r"^features/03_x\.feature:4: mend this line.*nonsense",
        ),
        ("# language: tlh-x\nFeature: x\n", r"features/03_x\.feature:1: .*tlh-x"),
        ("", r"features/03_x\.feature holds no Feature: write one, or remove the file"),
        ("# a remark\n", "holds no Feature"),
    ],
)
def test_a_feature_that_cannot_be_read_is_named_with_its_line(checkout: Path, text: str, said: str) -> None:
    (checkout / "features/03_x.feature").write_text(text)
    with pytest.raises(Misconfigured, match=said) as refused:
        write_page(checkout)
    assert "\n" not in str(refused.value)


def test_a_folder_that_cannot_be_made_is_named(checkout: Path) -> None:
    with pytest.raises(Misconfigured, match=r"README\.md/pages/runbook\.md cannot be written \(.*\): choose a folder"):
        write_page(checkout, checkout / "README.md/pages")


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENOSPC, EnvironmentFailed, "make room on its disk"),
        (errno.EDQUOT, EnvironmentFailed, "make room on its disk"),
        (errno.EACCES, Misconfigured, "choose a folder that can be written to"),
        (errno.EROFS, Misconfigured, "choose a folder that can be written to"),
    ],
)
def test_a_page_that_cannot_be_written_leaves_the_one_before(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], said: str
) -> None:
    paths = write_page(checkout)
    before = [path.read_bytes() for path in paths]

    def refuses(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("harness.reports.page.os.fchmod", refuses)
    keep(checkout, good_run())
    with pytest.raises(kind, match=rf"runbook\.md cannot be written \({os.strerror(number)}\): {said}"):
        write_page(checkout)
    assert [path.read_bytes() for path in paths] == before
    assert sorted(path.name for path in (checkout / ".runs").iterdir()) == ["run-1", "runbook.html", "runbook.md"]


# -- which records are read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"run"',
        "[" * 100_000,
        "\udcff",
        json.dumps({**good_run("run-2"), "schema": "platform.run/0"}),
        json.dumps({**good_run("run-2"), "scenarios": []}),
        json.dumps({**good_run("run-2"), "run_id": "run-9"}),
        json.dumps({"schema": "platform.run/1"}),
    ],
)
def test_what_is_no_record_of_a_run_is_passed_over(checkout: Path, text: str) -> None:
    keep(checkout, good_run("run-1"))
    path = checkout / ".runs/run-2/run.json"
    path.parent.mkdir()
    path.write_bytes(text.encode(errors="surrogateescape"))
    markdown = write_page(checkout)[0].read_text()
    assert "✓ **3 claims: 3 proven, 0 failed, 0 never run.**" in markdown
    assert "run-1" in markdown and "run-2" not in markdown and "run-9" not in markdown


@pytest.mark.parametrize("other", ["20261130-100000-aaaa", "20251130-100000-aaaa", "copied-from-elsewhere"])
@pytest.mark.parametrize("earlier", [0, 1, 7_200, None])
def test_runs_are_in_the_order_of_their_times_whatever_their_ids(
    checkout: Path, other: str, earlier: int | None
) -> None:
    """Ids may be of a clock on the wall: of Tokyo by day, of a cron of UTC by night. A run without a time is old."""
    variables, _ = features()
    red = record("20261130-030000-bbbb", ran(variables, "failed", error=FAULT))
    green = good_run(other)
    green["started"] = None if earlier is None else red["started"] - earlier
    keep(checkout, red)
    keep(checkout, green)
    markdown = write_page(checkout)[0].read_text()
    red_is_newer = earlier != 0 or red["run_id"] > other  # of the same moment the one with the later name
    assert ("✗ **3 claims: 2 proven, 1 failed" in markdown) == red_is_newer


@pytest.mark.parametrize("started", ["at ten", "1785578400", -1, 1e300, float("nan"), [], {}])
def test_a_run_whose_time_is_none_is_passed_over(checkout: Path, started: Any) -> None:
    keep(checkout, good_run("run-1"))
    keep(checkout, {**good_run("run-2"), "started": started})
    markdown = write_page(checkout)[0].read_text()
    assert "3 proven" in markdown and "run-1" in markdown and "run-2" not in markdown


def test_a_record_of_an_older_version_lacks_what_was_not_written_down_then(checkout: Path) -> None:
    variables, _ = features()
    run = record("run-1", ran(variables, "failed", error=FAULT))
    keep(checkout, {key: run[key] for key in ("schema", "run_id", "started", "status", "scenarios", "last_event")})
    markdown = write_page(checkout)[0].read_text()
    assert "✗ **The example is copied**" in markdown and "seen      2 machines" in markdown
    assert "| 2026-08-02 10:00 UTC | not on record | Verified | 1 |" in markdown
    assert "in 1.5 s, target not on record, run" in markdown


def test_a_folder_in_the_place_of_a_record_is_passed_over(checkout: Path) -> None:
    keep(checkout, good_run("run-1"))
    (checkout / ".runs/run-2/run.json").mkdir(parents=True)
    (checkout / ".runs/run-3").symlink_to("gone")
    assert "3 proven" in write_page(checkout)[0].read_text()


def test_no_more_records_are_read_than_are_needed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables, machines = features()
    keep(checkout, record("run-1", ran(variables)))
    keep(checkout, good_run("run-2"))
    keep(checkout, record("run-3", ran(machines, "not_run", reason="read-only"), ran(variables)))
    read: list[str] = []
    read_bytes = Path.read_bytes

    def counts(path: Path) -> bytes:
        read.extend([path.parent.name] if path.name == "run.json" else [])
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", counts)
    write_page(checkout)
    assert read == ["run-3", "run-2"], "with run-2 everything has evidence"
    for number in range(4, 4 + 2 * MOST_RUNS):
        keep(checkout, record(f"run-{number:04}", ran(variables)), f"run-{number:04}")
    read.clear()
    (checkout / "features/03_new.feature").write_text("Feature: 3. New\n  Scenario: New\n    Then it is\n")
    write_page(checkout)
    assert len(read) == MOST_RUNS


# -- a page without evidence -----------------------------------------------------------------------------------------


def test_without_a_run_every_claim_and_command_was_never_run() -> None:
    markdown = page(README, features(), [])
    assert "○ **3 claims: 0 proven, 0 failed, 3 never run.** 0 of 3 commands were typed." in markdown
    assert "No run is on record: `make acceptance` makes one." in markdown
    step = part(markdown, "### 2. Build the machines")
    assert "- ○ `terraform plan` *never typed*" in step
    assert "- ○ **Every machine runs**  \n  *never run: no run on record has it*" in step
    left_out = part(markdown, "## What was not run")
    assert left_out.count("- ○ ") == 6
    assert "**A second plan is empty** (2. Build the machines)" in left_out and "`terraform apply`" in left_out


def test_a_step_without_a_feature_says_so() -> None:
    markdown = page(README, features()[:1], [good_run()])
    step = part(markdown, "### 2. Build the machines")
    assert step.startswith("\nBuild the machines: all of them\n")
    assert "○ No feature holds this step." in step
    assert "| [2. Build the machines](#2-build-the-machines) | ○ no feature | none |" in markdown
    assert "- ○ **2. Build the machines**  \n  *no feature holds this step*" in part(markdown, "## What was not run")


@pytest.mark.parametrize("heading", ["3. Nobody tells", "Nowhere", "TODO", "0. Zero"])
def test_a_feature_without_a_step_is_not_lost(heading: str) -> None:
    extra = feature("features/03_extra.feature", f"Feature: {heading}\n  Scenario: It holds\n    Then it holds\n")
    markdown = page(README, [*features(), extra], [record("run-1", ran(extra))])
    found = part(markdown, "## What the README does not tell")
    assert f"### {heading}\n" in found and "- ✓ **It holds**" in found
    assert f"| [{heading}](#" in markdown, "the overview names it too"


def test_a_feature_has_the_place_of_its_title() -> None:
    extra = feature("features/09_core.feature", "Feature: Prerequisites\n  Scenario: It has core\n    Then it has\n")
    markdown = page(README, [*features(), extra], [])
    assert "- It has `core`.\n\n#### What must hold\n\n- ○ **It has core**" in part(markdown, "## Prerequisites")
    assert "What the README does not tell" not in markdown


def test_a_claim_that_was_left_out_of_every_run_has_the_newest_reason() -> None:
    variables, _ = features()
    runs = [record("run-2", ran(variables, "not_run", reason="read-only")), record("run-1", ran(variables, "not_run"))]
    markdown = page(README, features(), runs)
    assert "- ○ **The example is copied**  \n  *never run: read-only*" in markdown
    assert "The example is copied** (1. Prepare variables)  \n  *never run: read-only*" in markdown


# -- evidence --------------------------------------------------------------------------------------------------------


def test_good_evidence_has_time_duration_target_and_run() -> None:
    markdown = page(README, features(), [good_run()], written=START)
    assert markdown.startswith("# Cluster: the runbook\n\n✓ **3 claims: 3 proven, 0 failed, 0 never run.**")
    assert "3 of 3 commands were typed.\n\nWritten 2026-08-01 10:00 UTC" in markdown
    step = part(markdown, "### 1. Prepare variables")
    assert "- ✓ `cp example.tfvars terraform.tfvars` *2026-08-02 10:00 UTC, 0.5 s, exit status 0*" in step
    assert "```text\n  done\n  ```" in step
    claim = "- ✓ **The example is copied**  \n  *proven 2026-08-02 10:00 UTC in 1.5 s, target local, run run-1*\n"
    assert f"#### What must hold\n\nThe operator copies.\n\n{claim}" in step
    assert "  - When the operator runs `cp example.tfvars terraform.tfvars`\n  - Then it is there" in step
    assert "| run-1 | 2026-08-02 10:00 UTC | local | Verified: as the runbook says | 3 |" in markdown
    assert "✓ Every claim has evidence, and every command was typed." in part(markdown, "## What was not run")


def test_failed_evidence_shows_what_was_expected_seen_and_what_to_type() -> None:
    variables, machines = features()
    run = record("run-1", ran(variables), ran(machines, "failed", error=FAULT), status=1, headline="wrong")
    markdown = page(README, features(), [run])
    assert markdown.index("✗ **3 claims: 1 proven, 1 failed, 1 never run.**") < 60
    step = part(markdown, "### 2. Build the machines")
    assert "- ✗ **Every machine runs**  \n  *failed 2026-08-02 10:00 UTC in 1.5 s" in step
    said = ["at        features/02_machines.feature:5: When the operator runs `terraform plan`"]
    said += ["expected  3 machines", "seen      2 machines", "where     coreos-0"]
    assert "\n".join(f"  {line}" for line in ["```text", *said, "```"]) in step
    assert "  Type this to see it again:\n\n  ```\n  $ fleetctl list-machines\n  ```" in step


def test_an_error_that_expected_nothing_gives_its_message() -> None:
    variables, _ = features()
    error = {"kind": "KeyError", "status": 3, "message": "no such key"}
    markdown = page(README, features(), [record("run-1", ran(variables, "error", error=error))])
    assert "- ✗ **The example is copied**  \n  *ended in an error 2026" in markdown
    assert "seen      no such key" in markdown and "Type this" not in markdown
    assert "1 ended in an error" in markdown


def test_a_command_to_paste_is_whole_or_not_there() -> None:
    variables, _ = features()
    paste = "echo " + "x" * 3_000
    shown = page(README, features(), [record("run-1", ran(variables, "failed", error={**FAULT, "paste": paste}))])
    assert f"  $ {paste}\n" in shown
    longer = {**FAULT, "paste": paste * 3}
    assert "Type this" not in page(README, features(), [record("run-1", ran(variables, "failed", error=longer))])


def test_a_run_that_was_killed_is_no_evidence_of_what_it_was_at() -> None:
    variables, _ = features()
    run = record(
        "run-1", ran(variables, "interrupted"), commands=[{"line": "terraform plan"}], status=None, headline=""
    )
    markdown = page(README, features(), [run])
    assert "- ○ **The example is copied**  \n  *never run: " in markdown
    assert "- ! `terraform plan` *2026-08-02 10:00 UTC, never ended*" in markdown


def test_a_command_that_failed_says_how() -> None:
    run = record("run-1", commands=typed("terraform plan", status=2, stderr="Error: no\n"))
    assert (
        "- ✗ `terraform plan` *2026-08-02 10:00 UTC, 0.5 s, exit status 2*\n\n  ```text\n  Error: no\n  ```"
    ) in page(README, features(), [run])


def test_a_command_typed_twice_in_a_run_is_as_it_was_the_last_time() -> None:
    run = record("run-1", commands=[*typed("terraform plan", status=1), *typed("terraform plan")])
    assert "✓ `terraform plan` *2026-08-02 10:00 UTC, 0.5 s, exit status 0*" in page(README, features(), [run])


def test_what_was_answered_keeps_its_columns_and_loses_its_colours() -> None:
    run = record("run-1", commands=typed("terraform plan", stdout="\n\x1b[1mMACHINE\tIP\x1b[0m\n0a1b\t\t10.0.0.2\n\n"))
    answer = "  ```text\n  MACHINE IP\n  0a1b            10.0.0.2\n  ```"
    assert answer in page(README, features(), [run])


def test_the_newest_run_that_ran_a_claim_is_its_evidence() -> None:
    variables, machines = features()
    newest = record("run-3", ran(variables, "not_run", reason="read-only"), ran(machines, number=1))
    middle = record("run-2", ran(variables, "failed", error=FAULT), commands=typed("terraform plan", status=1))
    markdown = page(README, features(), [newest, middle, good_run("run-1")])
    assert "*failed 2026-08-03 10:00 UTC in 1.5 s, target local, run run-2*" in part(
        markdown, "### 1. Prepare variables"
    )
    step = part(markdown, "### 2. Build the machines")
    assert "**Every machine runs**  \n  *proven 2026-08-02" in step
    assert "**A second plan is empty**  \n  *proven 2026-08-04" in step
    assert "`terraform plan` *2026-08-03 10:00 UTC, 0.5 s, exit status 1*" in step
    assert "`terraform apply` *2026-08-02 10:00 UTC, 0.5 s, exit status 0*" in step
    assert "read-only" not in markdown, "why a newer run left it out is of no interest"
    assert "| [2. Build the machines](#2-build-the-machines) | ✓ 2 proven | 2026-08-02 10:00 UTC |" in markdown


def test_a_run_that_adds_nothing_is_counted_and_not_listed() -> None:
    variables, _ = features()
    runs = [good_run("run-3"), good_run("run-2"), record("run-1", ran(variables))]
    markdown = page(README, features(), runs)
    assert "The runs that say so, the newest first. 2 more were read, and say nothing newer." in markdown
    assert "run-2" not in markdown


def test_the_newest_run_is_listed_even_if_it_proves_nothing() -> None:
    variables, _ = features()
    newest = record("run-2", ran(variables, "not_run"), status=6, headline="The environment failed")
    assert "| run-2 | 2026-08-03 10:00 UTC | local | The environment failed | 0 |" in page(
        README, features(), [newest, good_run("run-1")]
    )


def test_of_a_claim_that_changed_the_evidence_says_so() -> None:
    run = good_run()
    changed = one(VARIABLES.replace("it is there", "it is there, whole"))
    markdown = page(README, [changed, features()[1]], [run])
    assert "- ! **The example is copied**  \n  *proven 2026-08-02" in markdown
    assert "run run-1; the claim has changed since*\n" in markdown
    assert "! **3 claims: 2 proven, 0 failed, 1 changed since, 0 never run.**" in markdown
    assert "The example is copied" in part(markdown, "## What was not run"), "as it is now it was not"


def test_a_claim_that_failed_and_changed_stays_failed() -> None:
    variables, _ = features()
    changed = one(VARIABLES.replace("it is there", "it is here"))
    markdown = page(README, [changed], [record("run-1", ran(variables, "failed", error=FAULT))])
    assert "✗ **The example is copied**" in markdown and "; the claim has changed since*" in markdown


def test_rows_of_an_outline_are_claims_each() -> None:
    text = "Feature: 1. Prepare variables\n  Scenario Outline: Site <name>\n    Then <name> answers\n"
    outline = one(f"{text}    Examples:\n      | name |\n      | blog |\n      | jpblog |\n")
    run = record("run-1", ran(outline), ran(outline, "failed", 1, error=FAULT))
    markdown = page(README, [outline], [run])
    assert "- ✓ **Site blog**" in markdown and "- ✗ **Site jpblog**" in markdown
    same_title = one(
        f"{text.replace('Site <name>', 'A site')}    Examples:\n      | name |\n      | blog |\n      | jpblog |\n"
    )
    run = record("run-1", ran(same_title), ran(same_title, "failed", 1, error=FAULT))
    assert "1 proven, 1 failed, 0 never run" in page(README, [same_title], [run])


# -- nothing breaks out ----------------------------------------------------------------------------------------------

NASTY = [
    "`", "``", "```", "````\n</code></pre>", "a ``` b", "`x` `y", "~~~", "<script>alert(1)</script>", "</main><h1>x",
    "<!-- ", "&lt;&amp;", "![x](https://a.example/x.png)", "[x](javascript:alert(1))", "[x]: https://a.example/",
    "# x", "1. x", "- x", "* x", "> x", "    x", "\tx", "| a | b |", "\\", "\\`", "\\|", "**x**", "__x__", "*", "_x_",
    "$x$", "x\n\n# y\n\n```\n$ z", "---", "===", "+++", "\x1b[31mred\x1b[0m", "\x00", "\u2028", "\ud800", "{{ x }}",
    "<https://a.example>", "https://a.example", "x  \ny", "\r\n\r\n## y", "✓ x", "1) x", "[^1]", "<b", "&#60;b&#62;",
]  # fmt: skip
texts = st.one_of(
    st.sampled_from(NASTY),
    st.lists(st.sampled_from([*NASTY, " ", "x", "\n"]), max_size=6).map("".join),
    st.text(alphabet="`~*_<>&[]()!#|\\-+=.1 \n\tx$:/\"'", max_size=40),
    st.text(max_size=40),
)


def around(text: str) -> tuple[list[Feature], list[Any]]:
    """Features and a run that have this text wherever a text can be."""
    title, keyword = f"x{text}x", "When"
    steps = (Step(keyword, "it holds"), Step("Then", "it is so", f"x{text}"))
    features = [
        Feature("features/01.feature", "1. Prepare variables", f"x{text}", (Scenario(f"t{text}", steps),)),
        Feature("features/02.feature", "2. Build the machines", "", (Scenario("Never", steps), Scenario("Bad", steps))),
        Feature("features/03.feature", title, text, (Scenario("Elsewhere", steps),)),
    ]
    fault = {"kind": "x", "status": 1, **dict.fromkeys(("message", "expected", "seen", "where", "paste"), f"x{text}")}
    scenarios = [ran(features[0]), ran(features[1], "not_run", reason=f"x{text}")]
    scenarios.append(ran(features[1], "failed", 1, error=fault))
    commands = typed("terraform plan", stdout=f"x{text}", stderr=text, status=f"x{text}")
    run = record(f"r1{text}", *scenarios, commands=commands, headline=f"x{text}", target=f"x{text}")
    return features, [run]


def elements(source: str) -> list[tuple[str, str]]:
    """What the page is made of, but for colours: of prompts in a command to paste, of marks that begin a text."""
    return [it for it in Seen(source).elements if it[0] != "i" and it[1] not in ("prompt", "remark")]


PLAIN = elements(html(page(README, *around("x"), reports=".")))


@given(texts)
@example("```\n\n# x")
def test_no_text_of_record_or_feature_changes_what_the_page_is_made_of(text: str) -> None:
    assume(one_line(f"x{text}"))  # a carriage return overwrites what stands before it
    features, runs = around(text)
    source = html(page(README, features, runs, reports="."))
    seen = Seen(source)
    # a description is as many paragraphs as are written; everything else is one element whatever it says
    paragraphs = [it for it in [*f"x{text}".split("\n\n"), *text.split("\n\n")] if one_line(it)]
    assert Counter(elements(source)) == Counter(PLAIN) + Counter({("p", ""): len(paragraphs) - 2}), paragraphs
    for shown in (f"t{text}", f"r1{text}"):
        assert re.sub(r"\s+", " ", one_line(shown)) in seen.text
    assert all(line.strip() in seen.text for line in re.split(r"\s+", clean(f"x{text}").expandtabs()))


@given(texts)
def test_a_step_is_text_and_code_and_nothing_else(text: str) -> None:
    about = Feature("features/01.feature", "1. Prepare variables", "", (Scenario("x", (Step("Then", f"x{text}x"),)),))
    seen = Seen(html(page(README, [about], [])))
    plain = Seen(html(page(README, [one(VARIABLES)], [])))
    assert {tag for tag, _ in seen.elements} <= {tag for tag, _ in plain.elements}
    assert seen.elements.count(("ul", "")) == 2, "of the README one, and one of the claim's steps"
    # without blanks: those at the ends of code are not shown
    shown, page_text = ("".join(it.replace("`", "").split()) for it in (one_line(f"x{text}x"), seen.text))
    assert shown in page_text


@pytest.mark.parametrize("text", NASTY)
def test_links_and_addresses_of_the_record_lead_nowhere(text: str) -> None:
    seen = Seen(html(page(README, *around(text), reports=".")))
    leading = [href for href in seen.all("href") if not href.startswith("#")]
    assert all(href.endswith("/report.html") and ":" not in href for href in leading)
    assert seen.all("src") == []


def test_commands_of_the_readme_keep_their_backticks_and_pipes() -> None:
    line = "echo `date` | tee ``x``"
    readme = f"## Operation\n\n1. Look\n\n   ```\n   $ {line}\n   ```\n"
    markdown = page(readme, [one("Feature: 1. Look\n")], [record("r1", commands=typed(line))])
    assert f"- ✓ ``` {line} ``` *2026" in markdown
    assert Seen(html(markdown)).text.count(line) == 2


# -- how large it gets -----------------------------------------------------------------------------------------------


def test_whatever_was_said_the_page_stays_readable() -> None:
    variables, machines = features()
    flood = "`x` <b>\n" * 500_000
    fault = {**FAULT, "expected": flood, "seen": flood, "message": flood, "paste": flood}
    commands = typed("terraform plan", "terraform apply", stdout=flood, stderr="y" * 5_000_000)
    scenarios = [ran(variables, "failed", error=fault), ran(machines, "not_run", reason=flood)]
    run = record("run-1", *scenarios, commands=commands, headline=flood)
    others = [record(f"run-0{number}", ran(variables), headline=flood) for number in range(MOST_RUNS)]
    markdown = page(README, features(), [run, *others])
    assert len(markdown) < 20_000 and len(html(markdown)) < 60_000
    assert re.search(r"\[\.\.\. [\d]+ lines left out; run\.json has them \.\.\.\]", markdown)


# -- the README in the page ------------------------------------------------------------------------------------------


def test_sections_come_through_but_for_those_of_developers() -> None:
    markdown = page(README, features(), [good_run()])
    assert "A small cluster." in markdown and "Type as it stands." in markdown
    assert part(markdown, "## Every day").strip() == "Look at `report.html`."
    for left_out in ("TODO", "Some day", "Resources", "a.example", "room"):
        assert left_out not in markdown


def test_a_step_begins_with_what_its_heading_does_not_say() -> None:
    readme = README.replace("2. Build the machines: all of them", "2. Build the machines. It takes\n   minutes")
    assert part(page(readme, features(), []), "### 2. Build the machines").startswith("\nIt takes\nminutes\n\n```")
    step = part(page(README, features(), []), "### 1. Prepare variables")
    assert step.startswith("\n```\n$ cp example.tfvars")
    only = page("## Operation\n\n1. Do it\n\n2. Do it again\n", [one("Feature: 1. Do it\n")], [])
    assert "### 1. Do it\n\n#### What must hold\n\n### 2. Do it again\n\n○ No feature" in only


def test_a_command_in_a_section_that_nobody_executes_is_not_called_untyped() -> None:
    readme = README.replace("Look at `report.html`.", "```\n$ bin/platform nightly\n```")
    markdown = page(readme, features(), [good_run()])
    assert part(markdown, "## Every day").strip() == "```\n$ bin/platform nightly\n```"
    assert "`bin/platform nightly`" not in markdown
    recovery = page(f"{README}\n## Recovery\n\n```\n$ terraform taint x\n```\n", features(), [good_run()])
    assert "#### Last typed\n\n- ○ `terraform taint x` *never typed*" in part(recovery, "## Recovery")
    assert "`terraform taint x`" in part(recovery, "## What was not run")


def test_steps_end_where_the_section_has_a_heading_of_its_own() -> None:
    readme = (
        "# T\n\n## Operation\n\n1. One\n\nBetween.\n\n3. Three\n\n### Rules\n\n1. A rule\n\n## Other\n\n1. No step\n"
    )
    _, operation, other = sections(readme)
    assert [(block.number, block.text) for block in operation.blocks] == [
        (1, "One"),
        (None, "Between."),
        (3, "Three"),
        (None, "### Rules"),
        (None, "1. A rule"),
    ]
    assert [block.number for block in other.blocks] == [None]


def test_a_step_keeps_its_inside() -> None:
    readme = (
        "## Operation\n\n 10. Ten\n\n     - a\n       - b\n\n     ```sh\n     $ cat <<E\n       x\n     ## no heading\n"
    )
    readme += "     ```\n\n     [a]: https://a.example/\n"
    step = sections(readme)[1].blocks[0]
    assert step.number == 10 and step.commands == ("cat <<E",)
    inside = "Ten\n\n- a\n  - b\n\n```sh\n$ cat <<E\n  x\n## no heading\n```\n\n[a]: https://a.example/"
    assert step.text == inside


def test_line_ends_and_a_byte_order_mark_make_no_difference() -> None:
    windows = "\ufeff" + README.replace("\n", "\r\n")
    assert sections(windows) == sections(README)
    assert sections("") == sections("\n\n")
    assert sections(README)[0] == Section("Cluster", (Block("A small cluster.", ()),))


def test_a_readme_may_be_nothing_but_its_operation() -> None:
    assert page("## Operation\n\n1. Do it\n", [one("Feature: 1. Do it\n")], []).startswith("# Platform: the runbook\n")


def test_a_feature_is_read_whole() -> None:
    text = "Feature: 1. X\n  A\n  b.\n\n  C.\n\n  Background:\n    Given all\n\n  Rule: r\n    Background:\n"
    text += "      Given more\n\n    Scenario: S\n      * it\n        | a | b |\n      Then so\n"
    text += '        """\n        ```\n        x\n        """\n'
    found = one(text)
    assert found.number == 1 and found.description == "A\nb.\n\nC."
    assert found.scenarios == (
        Scenario(
            "S",
            (
                Step("Given", "all"),
                Step("Given", "more"),
                Step("*", "it", "| a | b |"),
                Step("Then", "so", "```\nx"),
            ),
        ),
    )
    markdown = page(README, [found], [])
    assert "A b.\n\nC.\n" in markdown
    assert (
        "  - \\* it\n\n    ```text\n    | a | b |\n    ```\n  - Then so\n\n    ````text\n    ```\n    x\n    ````"
        in markdown
    )


# -- the HTML --------------------------------------------------------------------------------------------------------


def test_the_html_is_one_file_that_needs_nothing_else() -> None:
    source = html(page(README, features(), [good_run()]))
    seen = Seen(source)
    assert {"script", "link", "img", "iframe"}.isdisjoint(tag for tag, _ in seen.elements)
    assert "url(" not in source and "@import" not in source and "src=" not in source
    assert "prefers-color-scheme: dark" in source and "@media print" in source and "break-inside: avoid" in source
    assert "<title>Cluster: the runbook</title>" in source


def test_every_link_within_the_page_arrives() -> None:
    readme = README.replace("## Every day", "## Operation's `end`\n\n## Every day\n\n## Every day")
    seen = Seen(html(page(readme, features(), [good_run()])))
    anchors = seen.all("id")
    assert len(anchors) == len(set(anchors))
    within = [href.removeprefix("#") for href in seen.all("href") if href.startswith("#")]
    assert set(within) <= set(anchors)
    assert {"1-prepare-variables", "operations-end", "every-day", "every-day-1", "what-was-not-run"} <= set(within)


def test_prompts_are_apart_from_what_is_typed() -> None:
    source = html(page(README, features(), [good_run()]))
    assert '<pre class="typed"><code><span class="prompt">$ </span>terraform plan\n' in source
    assert '<span class="prompt">$ </span><span class="remark"># Examine the output</span>' in source
    assert '<pre class="said"><code>done</code></pre>' in source


def test_html_of_the_readme_is_shown_and_no_image_is_fetched() -> None:
    readme = README.replace("A small cluster.", "A <b>small</b> ![cluster](https://a.example/x.png).")
    source = html(page(readme, features(), []))
    assert "A &lt;b&gt;small&lt;/b&gt;" in source and "<img" not in source


# -- files -----------------------------------------------------------------------------------------------------------


def test_both_pages_are_written_into_the_folder_of_the_runs(checkout: Path) -> None:
    keep(checkout, good_run())
    paths = write_page(checkout)
    assert paths == [checkout / ".runs/runbook.md", checkout / ".runs/runbook.html"]
    assert "[run-1](run-1/report.html)" in paths[0].read_text()
    assert 'href="run-1/report.html"' in paths[1].read_text()
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in paths)
    assert write_page(checkout, checkout / ".runs") == paths, "again, over the ones before"


def test_a_page_elsewhere_has_links_only_where_the_reports_come_along(checkout: Path, tmp_path: Path) -> None:
    keep(checkout, good_run())
    inside = write_page(checkout, checkout / "pages/new")
    assert "[run-1](../../.runs/run-1/report.html)" in inside[0].read_text()
    outside = write_page(checkout, tmp_path / "mail")
    assert "report.html)" not in outside[0].read_text() and str(tmp_path) not in outside[0].read_text()
    assert sorted(path.name for path in (tmp_path / "mail").iterdir()) == ["runbook.html", "runbook.md"]


def test_the_page_is_a_pure_function() -> None:
    known, runs = features(), [good_run("run-2"), good_run("run-1")]
    before = copy.deepcopy((known, runs))
    first = page(README, known, runs, written=START)
    assert page(README, known, runs, written=START) == first
    assert html(first) == html(first)
    assert (known, runs) == before


# -- this project's page ---------------------------------------------------------------------------------------------


def test_this_projects_page_names_every_step_claim_and_command() -> None:
    readme, known = (ROOT / "README.md").read_text(), read_features(ROOT / "features")
    markdown = page(readme, known, [])
    source = html(markdown)
    text = Seen(source).text
    commands = commands_of_readme(readme)
    assert len(commands) >= 14 and len(known) >= 9
    for command in commands:
        assert f"$ {command}\n" in markdown and text.count(command) >= 2
    for it in known:
        # of several features about one section each has its title in front
        title = it.title.partition(": ")[0]
        assert f"\n### {title}\n" in markdown or f"\n## {title}\n" in markdown
        for scenario in it.scenarios:
            assert f"**{scenario.title}**" in markdown and scenario.title in text
    steps = [block for section in sections(readme) for block in section.blocks if block.number is not None]
    assert [block.number for block in steps] == list(range(1, len(steps) + 1))
    for section in sections(readme)[1:]:
        shown = section.title not in ("TODO", "Resources")
        assert (f"\n## {section.title}\n" in markdown) == shown
    assert "What the README does not tell" not in markdown and "No feature holds this step" not in markdown


def test_the_commands_of_the_parts_are_those_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    parts = [
        command for it in sections(readme) if it.title in SECTIONS for block in it.blocks for command in block.commands
    ]
    assert parts == commands_of_readme(readme)


def test_pages_are_made_beside_where_they_go(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename is at once only within one file system."""
    folders: list[Path] = []
    mkstemp = tempfile.mkstemp

    def notes(**where: Any) -> tuple[int, str]:
        folders.append(where["dir"])
        return mkstemp(**where)

    monkeypatch.setattr(tempfile, "mkstemp", notes)
    write_page(checkout, checkout / "new")
    assert folders == [checkout / "new"] * 2
