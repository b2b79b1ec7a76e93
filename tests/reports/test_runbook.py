"""The README as a runbook: which lines are typed, and that features and README are one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression
from pytest_bdd.parser import FeatureParser, Scenario, Step

from harness.errors import ExitStatus, Misconfigured
from harness.reports.runbook import REMEDY, TYPED, commands_of_features, commands_of_readme, drift, remedies, sections
from harness.rules.judging import RULES
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


# -- what to do about a cause --------------------------------------------------------------------------------------

TROUBLESHOOTING = """# A project

1. This is no item (`unit-runs`): it stands elsewhere.

## Troubleshooting

Some words before; `make diagnose` names (`unit-runs`): no item either.

1. The operator is not let in (`agent-holds-a-key`): the ssh-agent
   holds no key. Give it `ssh-add key`;
   fleetctl takes others.

2. A machine is another (once) (`host-key-is-pinned`, `host-keys-differ`,
   `machine-ids-differ`): it was made again: see (Recovery 2).

   ```
   $ ssh-keygen -R coreos-1
   ```

   And then look again.

10. A unit is on no machine (`unit-is-placed`): see.

## The whole

3. Nor is this (`site-answers`): it stands behind.
"""


def test_remedies_are_what_the_items_say_by_the_rules_that_they_name() -> None:
    second = "Troubleshooting 2: it was made again: see (Recovery 2)."

    assert remedies(TROUBLESHOOTING) == {
        "agent-holds-a-key": "Troubleshooting 1: the ssh-agent holds no key. Give it `ssh-add key`; "
        "fleetctl takes others.",
        "host-key-is-pinned": second,
        "host-keys-differ": second,
        "machine-ids-differ": second,
        "unit-is-placed": "Troubleshooting 10: see.",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "## Operation\n\n1. A step (`unit-runs`): do.\n",
        "\n## Troubleshooting\n",
        "\n## Troubleshooting\n\nNo items.\n",
        "\n## Troubleshooting\n\n1. It says no rule: do.\n",
        "\n## Troubleshooting\n\n1. In a block\n\n```\n(`unit-runs`): do.\n```\n",
    ],
)
def test_readme_that_says_nothing_of_causes_has_no_remedies(text: str) -> None:
    assert remedies(text) == {}


# what a diagnosis finds before there is anything to look at
FOUND_WITHOUT_A_LOOK = ("engine-answers", "cluster-is-made")


def faults_of_items(text: str) -> list[str]:
    """What is wrong with the section Troubleshooting: each rule has exactly one item, and each item names rules."""
    behind = text.partition("\n## Troubleshooting\n")[2].partition("\n## ")[0]
    items = re.split(r"^(?=\d+\. )", behind, flags=re.MULTILINE)[1:]
    told = [REMEDY.match(item.partition("```")[0]) for item in items]
    named = [name for it in told if it for name in re.findall(r"`([a-z-]+)`", it[2])]
    known = {*RULES, *FOUND_WITHOUT_A_LOOK}
    numbers = [int(item.partition(".")[0]) for item in items]
    return [
        *(f"item {item.partition('.')[0]} names no rule" for item, it in zip(items, told, strict=True) if not it),
        *(f"{name} is no rule" for name in dict.fromkeys(named) if name not in known),
        *(f"{name} is named {named.count(name)} times" for name in dict.fromkeys(named) if named.count(name) > 1),
        *(f"{name} has no item" for name in known if name not in named),
        *(["the items are not numbered from 1 on"] if numbers != list(range(1, len(items) + 1)) else []),
    ]


def test_each_rule_has_one_item_in_this_projects_readme() -> None:
    text = (ROOT / "README.md").read_text()

    assert faults_of_items(text) == []
    assert set(remedies(text)) == {*RULES, *FOUND_WITHOUT_A_LOOK}
    assert all(len(words) > 40 for words in remedies(text).values())


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        ("`port-is-open`", "`port-is-opened`", ["port-is-opened is no rule", "port-is-open has no item"]),
        (", `port-is-open`)", ")", ["port-is-open has no item"]),
        ("(`agent-holds-a-key`)", "(`agent-holds-a-key`, `room-is-left`)", ["room-is-left is named 2 times"]),
        (", `engine-answers`)", ")", ["engine-answers has no item"]),
        (" (`name-leads`):", ":", ["item 14 names no rule", "name-leads has no item"]),
        ("\n14. ", "\n15. ", ["the items are not numbered from 1 on"]),
    ],
)
def test_guard_of_the_items_notices(old: str, new: str, faults: list[str]) -> None:
    text = (ROOT / "README.md").read_text()
    section = text.index("\n## Troubleshooting\n")
    assert old in text[section:]

    assert faults_of_items(text[:section] + text[section:].replace(old, new, 1)) == faults


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
