"""The README as a runbook: which lines are typed, and that features and README are one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression
from pytest_bdd.parser import FeatureParser, Scenario, Step

from harness.errors import ExitStatus, Misconfigured
from harness.reports.runbook import TYPED, commands_of_features, commands_of_readme, drift, sections
from harness.runs.acceptance import BUILDING

ROOT = Path(__file__).resolve().parent.parent.parent
README = """# A project

```
$ not --in a section
```

## Architecture

```
$ not --in the runbook
```

## Operation

1. Prepare variables

   ```
   $ cp terraform.example.tfvars terraform.tfvars
   ```

2. Look

   ```sh
   $ terraform plan
   $ # Examine the output carefully
   $ #and again
   what it answers
   $ terraform apply
   ```

   An inline `$ command`, and

   $ no code block

### A sub-section

```
$ fleetctl start units/*.service
```

## Changing services

1. Take a blog off the air

   ```
   $ fleetctl stop blog.service
   ```

## Recovery

```
$ fleetctl destroy blog.service
```

## TODO

```
$ some day
```
"""


# -- a README that is no runbook -----------------------------------------------------------------------------------


def test_a_code_block_that_is_never_closed_is_refused_with_its_line() -> None:
    with pytest.raises(Misconfigured, match=r"README\.md:5: this code block is never closed") as refused:
        commands_of_readme("## Operation\n\ntext\n\n```\n$ ls\n\n## TODO\n")

    assert refused.value.status is ExitStatus.MISCONFIGURED


@pytest.mark.parametrize("text", ["", "# Operation\n\n```\n$ ls\n```\n", "## Usage\n\n```\n$ ls\n```\n"])
def test_a_readme_without_a_section_operation_is_no_runbook(text: str) -> None:
    with pytest.raises(Misconfigured, match=r"README.md has no section Operation"):
        commands_of_readme(text)


def test_a_heading_inside_a_code_block_is_none() -> None:
    with pytest.raises(Misconfigured, match="no section Operation"):
        commands_of_readme("```\n## Operation\n$ ls\n```\n")


# -- what is typed -------------------------------------------------------------------------------------------------


def test_the_runbooks_commands_are_those_of_its_sections_in_order() -> None:
    assert commands_of_readme(README) == [
        "cp terraform.example.tfvars terraform.tfvars",
        "terraform plan",
        "terraform apply",
        "fleetctl start units/*.service",
        "fleetctl stop blog.service",
        "fleetctl destroy blog.service",
    ]


def test_an_operation_without_commands_has_none() -> None:
    assert commands_of_readme("## Operation\n\nNothing to type.\n") == []


def test_remarks_and_answers_are_not_typed() -> None:
    text = "## Operation\n```\n$ # a remark\n$ ls # with a remark  \n# no prompt\nfile\n$\n$ \n```\n"

    assert commands_of_readme(text) == ["ls # with a remark"]


def test_features_type_their_commands_in_the_order_of_files_and_lines(tmp_path: Path) -> None:
    (tmp_path / "02_second.feature").write_text("  When the operator runs `third`\n")
    (tmp_path / "01_first.feature").write_text(
        "Feature: the operator runs `no step`\n"
        "  Scenario: x\n"
        "    # When the operator runs `a remark`\n"
        "    When the operator runs `first | cat` within 60 seconds\n"
        "    And the operator runs `second $VAR`   \n"
        "    Then the operator sees `no command`\n"
    )

    assert commands_of_features(tmp_path.glob("*.feature")) == ["first | cat", "second $VAR", "third"]


# -- drift ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executed", "said"),
    [
        (["a", "x", "c"], "command 2 of the runbook is `b`, executed was `x`"),
        (["b", "a", "c"], "command 1 of the runbook is `a`, executed was `b`"),
        (["a", "c"], "command 2 of the runbook is `b`, executed was `c`"),
        (["a", "b", "c", "d"], "executed, but not in the runbook: `d`"),
        (["a", "b", "c", "c"], "executed, but not in the runbook: `c`"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_what_differs_from_the_runbook_is_named(executed: list[str], said: str, whole: bool) -> None:
    assert drift(["a", "b", "c"], executed, whole=whole) == said


def test_a_whole_run_must_execute_all_of_the_runbook() -> None:
    assert drift(["a", "b", "c"], ["a", "b"], whole=True) == "in the runbook, but not executed: `c`"
    assert drift(["a"], [], whole=True) == "in the runbook, but not executed: `a`"


def test_a_run_that_ended_early_may_leave_the_rest_out() -> None:
    assert drift(["a", "b", "c"], ["a", "b"], whole=False) == ""
    assert drift(["a", "b", "c"], [], whole=False) == ""


def test_what_is_the_same_does_not_differ() -> None:
    assert drift(["a", "b"], ["a", "b"], whole=True) == ""
    assert drift([], [], whole=True) == ""


# -- the guard -----------------------------------------------------------------------------------------------------


def test_this_projects_features_type_exactly_this_projects_runbook() -> None:
    typed = commands_of_features((ROOT / "features").glob("*.feature"))

    assert commands_of_readme((ROOT / "README.md").read_text()) == typed
    assert len(typed) >= 10


def test_up_types_exactly_what_this_projects_section_operation_tells_to_type() -> None:
    """What comes behind it needs a cluster, and changes one that stands."""
    option, chosen = BUILDING
    typed = [
        command
        for path in sorted((ROOT / "features").glob("*.feature"))
        for scenario in scenarios(path)
        if chosen_by(chosen, scenario.tags | scenario.feature.tags)
        for step in scenario.steps
        if (command := command_typed(step))
    ]
    (operation,) = [it for it in sections((ROOT / "README.md").read_text()) if it.title == "Operation"]

    assert option == "-m"
    assert typed == [command for block in operation.blocks for command in block.commands]
    assert len(typed) >= 10


def scenarios(path: Path) -> list[Scenario]:
    feature = FeatureParser(str(ROOT), str(path.relative_to(ROOT))).parse()
    return [template.render({}) for template in feature.scenarios.values()]


def chosen_by(expression: str, tags: set[str]) -> bool:
    """As pytest chooses with -m."""
    return bool(Expression.compile(expression).evaluate(lambda name, **_: name in tags))


def command_typed(step: Step) -> str:
    found = TYPED.match(f"{step.keyword} {step.name}")
    return found[1] if found else ""


def test_what_up_leaves_out_is_said_by_tags_that_there_are() -> None:
    """A tag that is misspelt leaves nothing out."""
    known = {tag for path in (ROOT / "features").glob("*.feature") for it in scenarios(path) for tag in it.tags}
    known |= {
        tag for path in (ROOT / "features").glob("*.feature") for it in scenarios(path) for tag in it.feature.tags
    }

    assert set(re.findall(r"\w+", BUILDING[1])) - {"and", "or", "not"} <= known
