"""The operator: types the runbook's commands, and reads the answers and the files they leave."""

from __future__ import annotations

from pytest_bdd import given, then, when

from harness.drivers.shell import OperatorShell
from harness.model import tfvars
from harness.seams.process import Result
from steps.phrases import Change, Variables, phrase, require


@when(phrase("the operator runs `{line:Command}`"), target_fixture="answer")
def operator_runs(operator: OperatorShell, change: Change, line: str) -> Result:
    change(line)
    return operator.type(line)


@when(phrase("the operator runs `{line:Command}` within {seconds:d} seconds"), target_fixture="answer")
def operator_runs_within(operator: OperatorShell, change: Change, line: str, seconds: int) -> Result:
    change(line)
    return operator.type(line, within=seconds)


@then(phrase('file "{one:Name}" is the same as file "{other:Name}"'))
def file_is_the_same(operator: OperatorShell, one: str, other: str) -> None:
    seen, expected = (operator.cwd / one).read_bytes(), (operator.cwd / other).read_bytes()
    require(
        seen == expected, f"{one} is a copy of {other}", expected=f"{len(expected)} bytes", seen=f"{len(seen)} others"
    )


@given("the variables name a cluster of 1 or more machines")
@then("the variables name a cluster of 1 or more machines")
def variables_name_a_cluster(variables: Variables) -> None:
    machines = variables().get("machines")
    require(
        isinstance(machines, int) and machines >= 1,
        "the variables name a cluster",
        expected="machines = 1 or more",
        seen=machines,
        where=tfvars.FILE,
    )


@then(phrase('the variables differ from file "{example:Name}" in "{name:Name}" only'))
def variables_differ_in(operator: OperatorShell, variables: Variables, example: str, name: str) -> None:
    text = (operator.cwd / tfvars.FILE).read_text()
    original = (operator.cwd / example).read_text()
    expected = tfvars.set_string(original, name, str(variables()[name]))
    require(
        variables()[name] != tfvars.read(original)[name],
        f"{name} is new",
        expected="a new value",
        seen=variables()[name],
    )
    require(text == expected, f"{name} alone differs from {example}", expected=expected, seen=text, where=tfvars.FILE)
