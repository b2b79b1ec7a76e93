"""The operator: types the runbook's commands, and reads the answers and the files they leave."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack

from pytest_bdd import given, then, when

from harness.drivers import fleetctl as answers
from harness.drivers.cluster import Cluster
from harness.drivers.fleetctl import Fleetctl
from harness.drivers.shell import OperatorShell
from harness.model import tfvars
from harness.runs.agent import Keys
from harness.seams.process import Result
from steps.phrases import Change, Variables, phrase, require

KNOWN_HOSTS = "FLEETCTL_KNOWN_HOSTS_FILE"


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


@then(phrase('the answer says "{text:Name}"'))
def answer_says(answer: Result, text: str) -> None:
    require(text in answer.stdout, "the answer says what happened", expected=text, seen=answer.stdout.strip())


@then(phrase('the refusal says "{text:Name}"'))
def refusal_says(answer: Result, text: str) -> None:
    """On the error stream, whose lines a program may have broken and framed."""
    words = " ".join(answer.stderr.replace("│", " ").split())
    require(text in words, "the refusal says what is wrong", expected=text, seen=words)


# -- another shell, and what fleetctl says in it ---------------------------------------------------------------------


@given("the operator has opened another shell, without an ssh-agent", target_fixture="operator")
def shell_without_agent(another_shell: Callable[..., OperatorShell]) -> OperatorShell:
    return another_shell("SSH_AUTH_SOCK")


@given(
    phrase('the operator has opened another shell, whose tunnel leads around the machine of unit "{unit:Name}"'),
    target_fixture="operator",
)
def shell_with_another_tunnel(
    another_shell: Callable[..., OperatorShell], cluster: Cluster, unit: str
) -> OperatorShell:
    machine, shell = cluster.units.machine_running(unit), another_shell()
    through = next(name for name in cluster.machines.names if name != machine)
    shell.export(FLEETCTL_TUNNEL=cluster.machines.addresses[through])
    return shell


@given("the operator knows the machines by the host keys of another cluster")
def host_keys_of_another_cluster(operator: OperatorShell, put_back: ExitStack) -> None:
    file, other = operator.env[KNOWN_HOSTS], Keys.generate("another cluster").public
    right = (operator.cwd / file).read_text()
    put_back.callback(operator.edit, file, lambda _: right)
    operator.edit(file, lambda text: re.sub(r"^(\S+) .*\n", rf"\1 {other}", text, flags=re.MULTILINE))


@then(phrase('fleetctl\'s status, journal and ssh of unit "{unit:Name}" answer within {seconds:d} seconds'))
def fleetctl_answers(fleetctl: Fleetctl, unit: str, seconds: int) -> None:
    for answer in fleetctl.about(unit, seconds).values():
        answer.expect(0)


@then(
    phrase(
        'fleetctl\'s status, journal and ssh of unit "{unit:Name}" fail within {seconds:d} seconds, '
        'and say "{text:Name}"'
    )
)
def fleetctl_fails(fleetctl: Fleetctl, unit: str, seconds: int, text: str) -> None:
    for words, answer in fleetctl.about(unit, seconds).items():
        wrong = answers.fault(answer, text)
        require(
            not wrong, f"fleetctl {words} fails, and says why", expected=text, seen=wrong, paste=f"fleetctl {words}"
        )
