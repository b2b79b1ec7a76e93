"""bin/platform: the exit status of each way in which a command ends, and the few lines before any package is there."""

from __future__ import annotations

import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.commands import diagnose, own_checks
from harness.errors import (
    AnswerNotUnderstood,
    CommandFailed,
    EnvironmentFailed,
    ExitStatus,
    HarnessError,
    Misconfigured,
    PlatformWrong,
    ReadOnly,
    WaitExpired,
)
from harness.record.log import Recorder
from harness.runs import acceptance, check, standing
from harness.runs.acceptance import BUILDING
from harness.runs.workplace import in_use
from harness.setup.cache import Cache

ROOT = Path(__file__).resolve().parent.parent.parent
COMMANDS = cli._parser()[1]
# commands that the runbook names, and one for a run that is over: make has no target for them
OPERATORS = set(cli.OPERATORS)
NOT_OF_MAKE = {*OPERATORS, "report"}
OF_ENVIRONMENT = ("TARGET", "MACHINES", "KEEP", "RUN")

Platform = Callable[..., int]


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Whatever a command makes or removes by mistake, it is not this project's."""
    for name in ("infra/local/target.json", "infra/cloud/target.json"):
        (tmp_path / "root" / name).parent.mkdir(parents=True)
        (tmp_path / "root" / name).write_text("{}")
    monkeypatch.setattr(cli, "ROOT", tmp_path / "root")
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    for name in OF_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "root"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What acceptance, up and shell would build, instead of building it."""
    asked: list[dict[str, Any]] = []

    class Acceptance:
        def __init__(self, root: Path, target: str, machines: int | None, command: list[str]) -> None:
            asked.append({"target": target, "machines": machines, "command": command})

        def __call__(self, selection: Sequence[str], *, keep: bool) -> ExitStatus:
            asked[-1] |= {"selection": selection, "keep": keep}
            return ExitStatus.PLATFORM_WRONG

        def by_hand(self) -> ExitStatus:
            asked[-1] |= {"by hand": True}
            return ExitStatus.ENVIRONMENT_FAILED

    monkeypatch.setattr(acceptance, "Acceptance", Acceptance)
    return asked


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What check, nightly, diagnose, shell and down would do to which cluster, instead of doing it."""
    asked: list[dict[str, Any]] = []

    def known(module: object, name: str) -> None:
        def call(root: Path, folder: Path, selection: Sequence[str] = (), **options: object) -> ExitStatus:
            asked.append({"does": name, "cluster": folder.name, "selection": list(selection), **options})
            return ExitStatus.VERIFIED

        monkeypatch.setattr(module, name, call)

    for name in ("check", "nightly", "join"):
        known(check, name)
    known(diagnose, "diagnose")
    known(acceptance, "down")
    return asked


def stands(checkout: Path, *run_ids: str) -> None:
    """Clusters of these runs stand."""
    for run_id in run_ids:
        folder = checkout / ".runs" / run_id
        folder.mkdir(parents=True)
        for name in ("operator.json", "events.jsonl"):
            (folder / name).touch()


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """The status of a command that ends with an exception."""

    def end(error: BaseException) -> int:
        def command(arguments: object) -> int:
            raise error

        monkeypatch.setitem(cli.COMMANDS, "setup", cli.Command(command, "end"))
        return cli.main(["setup"])

    return end


# -- wrong usage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["acceptance", "--no-such-option"],
        ["acceptance", "--target"],
        ["acceptance", "--run", "a"],
        ["up", "--keep"],
        ["up", "-m", "site"],
        ["shell", "--mutates"],
        ["nightly", "features/08_site.feature"],
        ["nightly", "-m", "site"],
        ["nightly", "--outputs"],
        ["diagnose", "--outputs"],
        ["diagnose", "features/08_site.feature"],
        ["down", "a"],
        ["down", "--target", "local"],
        ["runbook", "here"],
        ["setup", "too many"],
        ["lint", "harness"],
        ["clean", "--force"],
        ["bench", "--rounds", "some"],
        ["report"],
        ["report", "a", "b"],
        ["--no-such-option"],
        ["use-new-discovery-url", "--no-such-option"],
        ["deploy-blog"],
        ["deploy-blog", "blog"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_4_and_says_what_is_right(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 4
    assert "usage: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("acceptence", "did you mean acceptance? "),
        ("tests", "did you mean test? "),
        ("chek", "did you mean check? "),
        ("nightly-run", "did you mean nightly? "),
        ("deploy", "did you mean deploy-blog? "),
        ("xyz", ""),
    ],
)
def test_an_unknown_word_is_4_and_gets_the_nearest_command_in_one_line(
    word: str, nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([word, "--target", "local"]) == 4
    assert capsys.readouterr().err == (
        f"platform: there is no command {word}: {nearest}all are listed by `make help`\n"
    )


@pytest.mark.parametrize(
    ("argv", "superfluous"),
    [
        (["setup", "too", "many"], "too many"),
        (["acceptance", "--mutates"], "--mutates"),
        (["down", "--force"], "--force"),
        (["clean", ".runs"], ".runs"),
    ],
)
def test_what_a_command_does_not_take_is_named(
    argv: list[str], superfluous: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 4
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{argv[0]} does not take {superfluous} (see bin/platform {argv[0]} --help)" in last


@pytest.mark.parametrize("command", ["acceptance", "up", "shell"])
def test_an_unknown_target_is_4_and_names_those_there_are(
    command: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "--target", "moon"]) == 4
    assert capsys.readouterr().err == "platform: there is no target moon: targets are cloud, local\n"
    assert not (checkout / ".runs").exists()


def test_a_target_that_is_mistyped_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["up", "--target", "locla"]) == 4
    assert "there is no target locla: did you mean local? targets are" in capsys.readouterr().err


def test_an_unknown_target_in_the_environment_is_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TARGET", "../local")

    assert cli.main(["acceptance"]) == 4
    assert "there is no target ../local" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["x", "3.5", "-1", "3 machines", " "])
@pytest.mark.parametrize("command", ["acceptance", "up", "shell"])
def test_machines_that_are_no_number_are_4(
    command: str,
    number: str,
    built: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main([command, f"--machines={number}"]) == 4
    monkeypatch.setenv("MACHINES", number)
    assert cli.main([command]) == 4

    assert capsys.readouterr().err == 2 * f"platform: machines = {number}: give a whole number\n"
    assert built == []


@pytest.mark.parametrize("command", ["check", "nightly", "down"])
def test_a_command_for_a_cluster_is_4_where_none_stands(
    command: str, checked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command]) == 4
    said = capsys.readouterr().err
    assert said.startswith("platform: no cluster stands here: build one with `make up`")
    assert said.count("\n") == 1 and checked == []


@pytest.mark.parametrize("command", ["check", "nightly", "down"])
def test_a_command_for_a_cluster_is_4_where_several_stand(
    command: str, checkout: Path, checked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    stands(checkout, "a", "b")

    assert cli.main([command]) == 4
    assert capsys.readouterr().err == "platform: several clusters stand, choose one with RUN=ID: a, b\n"
    assert checked == []


@pytest.mark.parametrize("command", ["check", "nightly", "down", "shell"])
def test_a_run_that_is_not_there_is_4(
    command: str, checkout: Path, checked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    stands(checkout, "20260801-120000-ab12")

    assert cli.main([command, "--run", "20260801-120000-ab13"]) == 4
    assert "there is no run 20260801-120000-ab13: did you mean 20260801-120000-ab12?" in capsys.readouterr().err
    assert checked == []


def test_nightly_of_outputs_that_are_not_there_is_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["nightly", "--outputs", str(tmp_path / "none.json")]) == 4
    assert "none.json" in capsys.readouterr().err


def test_clean_is_refused_while_a_cluster_stands(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    stands(checkout, "b", "a")
    (tmp_path / "cache/platform/fleet-abc").mkdir(parents=True)

    assert cli.main(["clean"]) == 4
    assert capsys.readouterr().err == (
        "platform: clusters stand that would be lost, remove them first (make down): a, b\n"
    )
    assert (checkout / ".runs/a/operator.json").exists() and (tmp_path / "cache/platform/fleet-abc").exists()


@pytest.mark.parametrize("log", [None, "folder"])
def test_a_report_of_a_folder_without_a_log_is_4(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], log: str | None
) -> None:
    if log == "folder":
        (tmp_path / "events.jsonl").mkdir()

    assert cli.main(["report", str(tmp_path)]) == 4
    assert capsys.readouterr().err == f"platform: {tmp_path} is no run's folder: it has no events.jsonl\n"


# -- a command that fails ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PlatformWrong("wrong"), 1),
        (CommandFailed(["false"], 1, "", "wrong"), 1),
        (WaitExpired("wrong"), 1),
        (AnswerNotUnderstood("terraform output", "{", "wrong"), 1),
        (HarnessError("wrong"), 3),
        (Misconfigured("wrong"), 4),
        (ReadOnly("wrong"), 4),
        (EnvironmentFailed("wrong"), 6),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_the_kind_of_an_error_is_the_status(
    ending: Callable[[BaseException], int],
    capsys: pytest.CaptureFixture[str],
    error: HarnessError,
    status: int,
) -> None:
    assert ending(error) == status == error.status
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"platform: {error}\n")


def test_an_interruption_is_2(ending: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(KeyboardInterrupt()) == 2
    assert capsys.readouterr().err == "platform: interrupted\n"


def test_an_error_that_nobody_thought_of_is_3_and_shows_where(
    ending: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Python's own status for it, 1, would say that the platform is wrong."""
    assert ending(ZeroDivisionError("surprise")) == 3
    said = capsys.readouterr().err
    assert "ZeroDivisionError: surprise" in said
    assert "test_cli.py" in said


@pytest.mark.parametrize(("code", "status"), [(0, 0), (None, 0), (1, 4), (2, 4), ("usage: ...", 4)])
def test_what_argparse_ends_with_is_usage_or_help(
    ending: Callable[[BaseException], int], code: object, status: int
) -> None:
    assert ending(SystemExit(code)) == status


@pytest.mark.parametrize(
    ("pytest_status", "status"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (-9, 3), (-11, 3), (77, 3)]
)
def test_the_status_of_pytest_is_put_into_our_terms(pytest_status: int, status: int) -> None:
    assert own_checks.pytest_status(pytest_status) == status


# -- a command that ends well --------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_is_0(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    assert "usage: " in capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--help"])
    said = capsys.readouterr().out

    assert [command for command in COMMANDS if command not in said] == []


def one_line_texts() -> dict[str, str]:
    """Command -> what the list of commands says of it."""
    actions = cli._parser()[0]._subparsers._group_actions  # type: ignore[union-attr]
    return {action.dest: str(action.help) for action in actions[0]._choices_actions}  # type: ignore[attr-defined]


def targets_of_make() -> dict[str, str]:
    """Target of the Makefile -> what `make help` says of it."""
    return dict(re.findall(r"(?m)^([a-z-]+):.*## (.+)$", (ROOT / "Makefile").read_text()))


def test_make_and_bin_platform_have_the_same_commands() -> None:
    targets = targets_of_make()

    assert set(targets) - {"help"} == set(COMMANDS) - NOT_OF_MAKE
    phony = re.search(r"(?m)^\.PHONY: (.*)$", (ROOT / "Makefile").read_text())
    assert phony is not None and phony[1].split() == list(targets)


def test_make_and_bin_platform_say_the_same_of_a_command() -> None:
    texts, targets = one_line_texts(), targets_of_make()

    assert [name for name in texts if name not in NOT_OF_MAKE and targets[name] != texts[name]] == []
    assert all("\n" not in text and len(text) <= 100 for text in texts.values())


def test_a_target_of_make_is_its_command() -> None:
    text = (ROOT / "Makefile").read_text()

    recipes = dict(re.findall(r"(?m)^([a-z-]+):.*##.*\n\t@bin/platform (.+)$", text))
    assert {name: re.sub(r" \$\((ARGS|FILES)\)$", "", recipe) for name, recipe in recipes.items()} == {
        name: name for name in targets_of_make() if name != "help"
    }


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - OPERATORS))
def test_help_of_a_command_begins_with_its_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([command, "--help"])

    said, text = " ".join(capsys.readouterr().out.split()), one_line_texts()[command]
    assert f"{text[0].upper()}{text[1:]}." in said


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs make with the real Makefile and command line, without an environment of its own to be made first."""
    folder = tmp_path / "made"
    for name in ("bin", "tests"):
        (folder / name).mkdir(parents=True)
    (folder / "Makefile").write_text((ROOT / "Makefile").read_text())
    program = folder / "bin/platform"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m harness.cli "$@"\n')
    program.chmod(0o755)
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True)

    return run


@pytest.mark.parametrize(("word", "nearest"), [("wrong", ""), ("tests", "did you mean test? ")])
def test_make_of_an_unknown_word_says_the_same(
    make: Callable[..., subprocess.CompletedProcess[str]], word: str, nearest: str
) -> None:
    """Also of the name of a folder, which make would take for a target that is up to date."""
    done = make(word)

    assert done.returncode == 2
    line, of_make = done.stderr.splitlines()
    assert line == f"platform: there is no command {word}: {nearest}all are listed by `make help`"
    assert of_make.endswith(f"{word}] Error 4")


def test_make_alone_and_make_help_list_the_commands(
    make: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    listed = [line.split("\t") for line in make().stdout.splitlines()]

    assert dict(listed) == targets_of_make()
    assert make("help").stdout == make().stdout


def test_make_passes_arguments_and_variables_on(
    make: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    program = tmp_path / "made/bin/platform"
    program.write_text('#!/bin/sh\necho "$KEEP $MACHINES $RUN $TARGET:" "$@"\n')

    done = make("check", "KEEP=1", "MACHINES=4", "RUN=a", "TARGET=cloud", "ARGS=-k 'not blog'")
    assert done.stdout == "1 4 a cloud: check -k not blog\n"


# -- what reaches a command ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "argv", "kept"),
    [
        (None, [], False),
        ("", [], False),
        ("0", [], False),
        ("1", [], True),
        ("yes", [], True),
        ("0", ["--keep"], True),
        (None, ["--keep"], True),
    ],
)
def test_keep_is_said_by_option_or_environment(
    built: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, keep: str | None, argv: list[str], kept: bool
) -> None:
    if keep is not None:
        monkeypatch.setenv("KEEP", keep)

    assert cli.main(["acceptance", *argv]) == 1
    assert [asked["keep"] for asked in built] == [kept]


@pytest.mark.parametrize(
    ("environment", "argv", "machines"),
    [
        ({}, [], None),
        ({"MACHINES": ""}, [], None),
        ({"MACHINES": "5"}, [], 5),
        ({"MACHINES": "0"}, [], 0),
        ({}, ["--machines", "5"], 5),
        ({"MACHINES": "7"}, ["--machines", "5"], 5),
    ],
)
@pytest.mark.parametrize("command", ["acceptance", "up", "shell"])
def test_the_size_is_said_by_option_or_environment(
    built: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    environment: dict[str, str],
    argv: list[str],
    machines: int | None,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    cli.main([command, *argv])
    (asked,) = built
    assert asked["machines"] == machines
    size = [] if machines is None else ["--machines", str(machines)]
    assert asked["command"] == [command, "--target", "local", *size]


@pytest.mark.parametrize(
    ("environment", "argv", "target"),
    [
        ("", [], "local"),
        ("cloud", [], "cloud"),
        ("cloud", ["--target", "local"], "local"),
        ("moon", ["--target=cloud"], "cloud"),
    ],
)
def test_the_target_is_said_by_option_or_environment(
    built: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, environment: str, argv: list[str], target: str
) -> None:
    monkeypatch.setenv("TARGET", environment)

    cli.main(["up", *argv])
    assert [asked["target"] for asked in built] == [target]


def test_acceptance_chooses_as_pytest_does(built: list[dict[str, Any]]) -> None:
    site = str(ROOT / "features/08_site.feature")
    cli.main(["acceptance", "-m", "not destructive", f"{site}:7", "-k", "blog"])

    assert built[0]["selection"] == ["-m", "not destructive", "-k", "blog", f"{site}:7"]
    assert cli.main(["acceptance", "features/08_sites.feature"]) == 4 and len(built) == 1


def test_acceptance_executes_all_and_up_what_builds_and_both_pass_their_status_on(
    built: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = ("acceptance", "recovery", "up", "shell")
    assert [cli.main([command]) for command in commands] == [1, 1, 1, 6]
    whole, disasters, building, by_hand = built
    assert (disasters["selection"], disasters["keep"]) == (("-m", "slow"), False)
    assert (whole["selection"], whole["keep"]) == ([], False)
    assert (building["selection"], building["keep"]) == (BUILDING, True)
    assert by_hand["by hand"]


@pytest.mark.parametrize(
    ("command", "does"),
    [("check", "check"), ("nightly", "nightly"), ("diagnose", "diagnose"), ("down", "down"), ("shell", "join")],
)
@pytest.mark.parametrize("said", ["option", "environment", "folder"])
def test_the_run_is_said_by_option_or_environment(
    checkout: Path,
    checked: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    does: str,
    said: str,
) -> None:
    stands(checkout, "a", "b")
    monkeypatch.setenv("RUN", {"option": "a", "environment": "b", "folder": ""}[said])
    option = {"option": ["--run", "b"], "environment": [], "folder": ["--run", ".runs/b/"]}[said]

    assert cli.main([command, *option]) == 0
    assert [(asked["does"], asked["cluster"]) for asked in checked] == [(does, "b")]


@pytest.mark.parametrize("command", ["check", "nightly", "diagnose", "down"])
def test_the_only_cluster_need_not_be_named(checkout: Path, checked: list[dict[str, Any]], command: str) -> None:
    stands(checkout, "a")
    (checkout / ".runs/of-a-run-that-is-over").mkdir()

    assert cli.main([command]) == 0
    assert [asked["cluster"] for asked in checked] == ["a"]


def test_down_says_what_is_gone(
    checkout: Path, checked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    stands(checkout, "a")

    cli.main(["down"])
    assert capsys.readouterr().out == "nothing of run a is left\n"


@pytest.mark.parametrize(
    ("argv", "selection", "mutates"),
    [
        ([], [], False),
        (["-m", "site"], ["-m", "site"], False),
        (["-k", "not blog", "-x"], ["-k", "not blog", "-x"], False),
        (["features/08_site.feature:7", "-k", "a"], ["features/08_site.feature:7", "-k", "a"], False),
        (["-k", "a", "features/08_site.feature"], ["-k", "a", "features/08_site.feature"], False),
        (["--run", "a", "-vv", "--mutates", "-m", "load"], ["-vv", "-m", "load"], True),
        (["-m", "mutates"], ["-m", "mutates"], False),
        (["--maxfail=1"], ["--maxfail=1"], False),
    ],
)
def test_check_passes_on_what_chooses(
    checkout: Path, checked: list[dict[str, Any]], argv: list[str], selection: list[str], mutates: bool
) -> None:
    stands(checkout, "a")

    assert cli.main(["check", *argv]) == 0
    assert checked == [{"does": "check", "cluster": "a", "selection": selection, "mutates": mutates}]


def test_nightly_of_outputs_needs_no_cluster_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[object] = []

    class Check:
        @classmethod
        def of_outputs(cls, root: Path, command: list[str], *arguments: object) -> Check:
            asked.extend([command, *arguments])
            return cls()

        def __call__(self, *, quiet: bool, as_json: bool) -> ExitStatus:
            asked.extend([quiet, as_json])
            return ExitStatus.NOTHING_VERIFIED

    monkeypatch.setattr(check, "Check", Check)
    outputs, key = tmp_path / "outputs.json", tmp_path / "key"

    assert cli.main(["nightly", "--target", "cloud", "--outputs", str(outputs), "--key", str(key)]) == 5
    assert cli.main(["nightly", "--json", "--outputs", str(outputs), "--key", str(key)]) == 5
    assert asked == [
        *(["nightly"], "cloud", outputs, key, True, False),
        *(["nightly"], "local", outputs, key, True, True),
    ]


def test_diagnosis_of_outputs_needs_neither_a_cluster_of_ours_nor_a_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[object] = []

    def of_outputs(*arguments: object, keyless: bool) -> str:
        asked.extend([*arguments[1:], keyless])
        return "the check"

    def diagnosed(check: object, *, as_json: bool) -> ExitStatus:
        asked.extend([check, as_json])
        return ExitStatus.PLATFORM_WRONG

    monkeypatch.setattr(check.Check, "of_outputs", of_outputs)
    monkeypatch.setattr(diagnose, "diagnosed", diagnosed)
    outputs = tmp_path / "outputs.json"

    assert cli.main(["diagnose", "--target", "cloud", "--outputs", str(outputs)]) == 1
    assert cli.main(["diagnose", "--json", "--outputs", str(outputs), "--key", "k"]) == 1
    assert asked == [
        *(["diagnose"], "cloud", outputs, None, True, "the check", False),
        *(["diagnose"], "local", outputs, Path("k"), True, "the check", True),
    ]


def test_diagnosis_for_programs(checkout: Path, checked: list[dict[str, Any]]) -> None:
    stands(checkout, "a")

    assert cli.main(["diagnose", "--json"]) == 0
    assert [asked["as_json"] for asked in checked] == [True]


# -- reports, and clean --------------------------------------------------------------------------------------------


def test_a_report_is_written_again_from_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder(tmp_path / "events.jsonl")
    recorder.emit("run.started", run_id="r", target="local", command=[], folder=".", readme=[], selection=None)
    recorder.close()

    assert cli.main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/report.html\n"
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == [
        "events.jsonl",
        "junit.xml",
        "report.html",
        "run.json",
    ]


def test_a_report_of_a_log_that_was_cut_off_is_written(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "events.jsonl")
    recorder.emit("stage.started", stage="runbook")
    recorder.close()
    with (tmp_path / "events.jsonl").open("a") as log:
        log.write('{"t": 17, "kind": "stage.en')

    assert cli.main(["report", str(tmp_path)]) == 0


def test_clean_removes_what_was_built_and_no_more(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no Docker client: images are another test's
    for folder in (Cache(tmp_path / "cache/platform").folder / "fleet-0123456789ab", checkout / ".runs/a"):
        folder.mkdir(parents=True)

    assert cli.main(["clean"]) == 0
    assert list((tmp_path / "cache").iterdir()) == []
    assert not (checkout / ".runs").exists()
    assert (checkout / "infra/local/target.json").exists()


def test_clean_leaves_what_is_not_ours_and_says_so(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (Cache(tmp_path / "cache/platform").folder / "fleet-0123456789ab").mkdir()
    theirs = ["platform/thesis.tex", "clusters/prod.yaml", "bytecode/mine.pyc", "go/mine.go", "fleet.lock"]
    for name in theirs:
        (tmp_path / "cache" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "cache" / name).write_text("years of work")

    assert cli.main(["clean"]) == 0
    assert capsys.readouterr().out == (
        f"removed .runs, the cache {tmp_path}/cache/platform (its images stay: no Docker Engine answers); "
        "still there, because not ours or in use: thesis.tex\n"
    )
    left = {str(path.relative_to(tmp_path / "cache")) for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert left == {*theirs, "platform/CACHEDIR.TAG"}
    assert all((tmp_path / "cache" / name).read_text() == "years of work" for name in theirs)


def test_clean_finds_what_an_older_version_put_beside_the_things_of_others(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("fleet-0123456789ab", "clusters", "photos"):
        (tmp_path / "cache" / name).mkdir(parents=True)
    (tmp_path / "cache/clusters/a").symlink_to(tmp_path / "elsewhere/.runs/a")

    assert cli.main(["clean"]) == 0
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["photos"]


# as this version notes it, and as an older one did, in $PLATFORM_CACHE itself
@pytest.mark.parametrize("note", ["platform/clusters/platform-run-{}", "clusters/{}"])
def test_clean_does_not_take_the_cache_from_under_another_checkouts_cluster(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], note: str
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    run = tmp_path / "elsewhere/.runs/20260101-000000-abcd"
    run.mkdir(parents=True)
    (run / "operator.json").touch()
    Cache(tmp_path / "cache/platform")
    link = tmp_path / "cache" / note.format(run.name)
    link.parent.mkdir()
    link.symlink_to(run)

    assert cli.main(["clean"]) == 4
    assert str(run) in capsys.readouterr().err
    (run / "operator.json").unlink()
    assert cli.main(["clean"]) == 0
    assert list((tmp_path / "cache").iterdir()) == []
    assert run.is_dir()


@pytest.mark.parametrize("whose", ["this checkout's", "another's"])
def test_clean_leaves_alone_what_a_run_that_sets_up_needs(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], whose: str
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    run = (checkout if whose == "this checkout's" else tmp_path / "elsewhere") / ".runs/20260101-000000-abcd"
    run.mkdir(parents=True)
    (run / "events.jsonl").touch()
    cache = Cache(tmp_path / "cache/platform")
    half = cache.folder / "fleet-0123456789ab.partial"
    half.mkdir()
    with in_use(run, alone=True):
        standing.remember(cache.folder, run)

        assert cli.main(["clean"]) == 4
        assert "runs are under way that need what is to be removed, wait for their end: " in (
            said := capsys.readouterr().err
        )
        assert run.name in said
        assert half.is_dir() and (run / "events.jsonl").exists()
    assert cli.main(["clean"]) == 0
    assert not cache.folder.exists()


def test_the_module_ends_with_the_commands_status() -> None:
    command = [sys.executable, "-m", "harness.cli", "no-such-command"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    assert subprocess.run(command, env=environment, capture_output=True).returncode == 4


# -- bin/platform, before there are packages -----------------------------------------------------------------------


# Runs bin/platform as another Python would, as far as that file can tell: the Python that really runs it stays whole.
# Arguments: the file, that Python's version, whether it knows list[str].
OLD_PYTHON = """
import builtins, runpy, sys, types

path, version, generic = sys.argv[1:]
old = types.ModuleType("sys")
old.__dict__.update(vars(sys), version=version + " (main)", argv=["platform", "acceptance"])
old.version_info = tuple(map(int, version.split(".")))
real = builtins.__import__

def imported(name, names=None, *rest):
    return old if name == "sys" and (names or {}).get("__file__") == path else real(name, names, *rest)

class OldList(list):
    __class_getitem__ = None

builtins.__import__ = imported
runpy.run_path(path, {} if generic == "generic" else {"list": OldList}, "__main__")
"""


# in 3.8, list[str] is a TypeError: nothing may stumble before the version was looked at
@pytest.mark.parametrize(("version", "generic"), [("3.10.14", "generic"), ("3.8.10", "")])
def test_an_old_python_is_refused_with_one_line(tmp_path: Path, version: str, generic: str) -> None:
    argv = [sys.executable, "-c", OLD_PYTHON, str(ROOT / "bin/platform"), version, generic]
    environment = {**os.environ, "PLATFORM_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == f"platform: Python 3.11 or newer is needed, this is {version}\n"
    assert not (tmp_path / "cache").exists()


class Started(Exception):
    """The command line was reached."""


@pytest.fixture
def bin_platform(monkeypatch: pytest.MonkeyPatch) -> Platform:
    """Runs bin/platform up to the start of harness.cli; its status."""

    def start(python: Path, argv: Sequence[str], environment: dict[str, str]) -> None:
        raise Started(python, list(argv), environment)

    monkeypatch.setattr(os, "execve", start)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["platform", *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "bin/platform"), run_name="__main__")
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run


def commands(monkeypatch: pytest.MonkeyPatch, *failing: str) -> list[str]:
    """Takes the place of what makes the environment; commands that hold one of these words fail."""
    run: list[str] = []

    def fake(argv: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        run.append(" ".join(map(str, argv)))
        fails = any(word in run[-1] for word in failing)
        if "-m venv" in run[-1]:
            Path(argv[-1]).mkdir(parents=True)
        return subprocess.CompletedProcess(argv, int(fails), "", "first\nno space left on device\n" if fails else "")

    monkeypatch.setattr(subprocess, "run", fake)
    return run


def test_an_environment_that_cannot_be_made_is_6_in_one_line(
    bin_platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands(monkeypatch, "runtime.txt")

    assert bin_platform("setup") == 6
    assert capsys.readouterr().err.splitlines() == [
        "platform: making the Python environment (once)",
        "platform: the Python packages of runtime.txt cannot be installed: no space left on device",
    ]


def test_a_cache_that_cannot_be_made_is_6_in_one_line(
    bin_platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "file/cache"))

    assert bin_platform("setup") == 6
    said = capsys.readouterr().err
    assert (
        said == f"platform: the Python environment cannot be made in {tmp_path}/file/cache/platform: Not a directory\n"
    )


def test_a_python_without_venv_that_cannot_be_given_one_is_4(
    bin_platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands(monkeypatch, "import ensurepip")
    monkeypatch.setenv("PATH", "/nowhere")

    assert bin_platform("setup") == 4
    assert "install python3-venv" in capsys.readouterr().err


def test_an_interruption_before_the_command_is_2(
    bin_platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupt)

    assert bin_platform("setup") == 2
    assert capsys.readouterr().err.endswith("platform: interrupted\n")


def test_an_environment_is_made_once_and_a_half_made_one_again(
    bin_platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = commands(monkeypatch, "runtime.txt")
    bin_platform("setup")
    run = commands(monkeypatch)
    with pytest.raises(Started):
        bin_platform("setup")
    assert len([command for command in run if "--require-hashes" in command]) == 2

    run = commands(monkeypatch)
    with pytest.raises(Started) as started:
        bin_platform("setup", "--help")
    assert run == []
    python, argv, environment = started.value.args
    assert str(python).startswith(str(tmp_path / "cache"))
    assert argv[1:] == ["-m", "harness.cli", "setup", "--help"]
    assert environment["PYTHONPATH"] == str(ROOT)
    assert float(environment["PLATFORM_BEGAN"]) > 0


def test_people_who_work_on_the_harness_get_an_environment_of_their_own(
    bin_platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    pythons = {}
    for command in ("setup", "test", "lint", "acceptance"):
        commands(monkeypatch)
        with pytest.raises(Started) as started:
            bin_platform(command)
        pythons[command] = started.value.args[0]

    assert pythons["test"] == pythons["lint"] != pythons["setup"] == pythons["acceptance"]


def test_every_exit_status_is_told_in_the_readme() -> None:
    said = " ".join((ROOT / "README.md").read_text().split())

    assert all(f" {int(status)} " in said for status in ExitStatus)


def test_shell_scripts_are_found_by_their_first_line_whatever_their_names(checkout: Path) -> None:
    for name, text in (
        ("a b.sh", "#!/bin/sh\n"),
        ("plain", "#!/usr/bin/env bash\n"),
        ("code.py", "#!/usr/bin/env python3\n"),
    ):
        (checkout / name).write_text(text)
    for command in (["git", "init", "--quiet"], ["git", "add", "--all"]):
        subprocess.run(command, cwd=checkout, check=True)
    (checkout / "plain").unlink()  # tracked, and gone

    assert own_checks.shell_scripts(checkout) == ["a b.sh"]


CONTROL = "\x1b]0;title\x07\x1b[2Jtold\x9b1A\x07"


@pytest.mark.parametrize("raised", [EnvironmentFailed(CONTROL), RuntimeError(CONTROL)])
def test_what_others_say_does_not_command_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: Exception
) -> None:
    def patience() -> float:
        raise raised

    monkeypatch.setattr(cli, "patience", patience)
    cli.main(["clean"])

    assert "told\n" in (said := capsys.readouterr().err) and not set(said) & set(CONTROL[:1] + "\x9b\x07")


def test_a_unit_file_does_not_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unit = tmp_path / f"it{CONTROL}.service"
    unit.write_text(f"[Unit]\nnone{CONTROL}\n[{CONTROL}]\nA{CONTROL}=b\n[X-Fleet]\n{CONTROL}=c\n")
    cli.main(["lint-units", str(unit)])

    assert "told" in (said := capsys.readouterr().out) and not set(said) & set(CONTROL[:1] + "\x9b\x07")


# -- whatever surrounds it ---------------------------------------------------------------------------------------------


def started(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """bin/platform with a Python in the cache that prints what it is given, instead of harness.cli."""
    environment = {"PATH": os.environ["PATH"], "PLATFORM_CACHE": str(tmp_path / "cache"), "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [str(ROOT / "bin/platform"), *arguments], env=environment | variables, capture_output=True, text=True
    )


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A cache in which both environments are made: their Python prints its environment."""
    names = {"runtime": ("build", "runtime"), "dev": ("build", "runtime", "dev")}
    version = subprocess.run(["python3", "-c", "import sys; print(sys.version)"], capture_output=True, text=True)
    for purpose, locks in names.items():
        texts = b"".join((ROOT / f"requirements/{name}.txt").read_bytes() for name in locks)
        key = hashlib.sha256(texts + version.stdout.rstrip("\n").encode()).hexdigest()[:12]
        folder = tmp_path / "cache/platform" / f"python-{purpose}-{key}"
        (folder / "bin").mkdir(parents=True)
        (folder / "finished").touch()
        (folder / "bin/python").write_text("#!/bin/sh\nenv\n")
        (folder / "bin/python").chmod(0o755)
    return tmp_path / "cache"


def test_what_the_shell_holds_for_other_programs_stays_outside(made: Path, tmp_path: Path) -> None:
    strange = {"PYTEST_ADDOPTS": "--trace", "PYTHONHOME": "/nowhere", "PYTHONPATH": "/x", "PIP_TARGET": "/x"}
    done = started(tmp_path, "up", **strange, TF_VAR_machines="1", TF_CLI_ARGS="-x", LC_ALL="POSIX")

    assert done.stderr == (
        "platform: TF_CLI_ARGS, TF_VAR_machines are set and not obeyed: a run's variables stand in terraform.tfvars\n"
    )
    given = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert {name: given.get(name) for name in (*strange, "TF_VAR_machines", "TF_CLI_ARGS", "LC_ALL", "PYTHONUTF8")} == {
        **dict.fromkeys(strange),
        "PYTHONPATH": str(ROOT),
        "TF_VAR_machines": None,
        "TF_CLI_ARGS": None,
        "LC_ALL": "C.UTF-8",
        "PYTHONUTF8": "1",
    }


def test_an_operators_command_sees_the_terraform_that_the_operator_sees(made: Path, tmp_path: Path) -> None:
    done = started(tmp_path, "deploy-blog", TF_WORKSPACE="prod", PYTEST_ADDOPTS="--trace")

    assert "TF_WORKSPACE=prod\n" in done.stdout and "PYTEST" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("variables", "status", "line"),
    [
        (
            {"PLATFORM_CACHE": "/tmp/with blank"},
            4,
            "platform: the cache /tmp/with blank/platform has a blank or a colon",
        ),
        ({"PLATFORM_CACHE": "/tmp/a:b"}, 4, "platform: the cache /tmp/a:b/platform has a blank or a colon"),
        ({"TMPDIR": "LONG"}, 4, "platform: TMPDIR is /"),
        (
            {"PLATFORM_CACHE": "/proc/version/x"},
            6,
            "platform: the Python environment cannot be made in /proc/version/x",
        ),
        ({"PLATFORM_CACHE": "/" + "x" * 300}, 6, "platform: the Python environment cannot be made in /xxx"),
    ],
    ids=["blank", "colon", "TMPDIR", "cache that may not be entered", "cache that can be none"],
)
def test_surroundings_that_do_not_do_are_refused_in_one_line(
    made: Path, tmp_path: Path, variables: dict[str, str], status: int, line: str
) -> None:
    long = tmp_path / ("x" * 80)
    long.mkdir()
    done = started(tmp_path, "up", **{name: str(long) if it == "LONG" else it for name, it in variables.items()})

    assert (done.returncode, len(done.stderr.splitlines())) == (status, 1), done.stderr
    assert done.stderr.startswith(line)
    assert done.stdout == ""


def test_a_checkout_with_a_blank_is_refused_in_one_line(made: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "with blank"
    for name in ("bin/platform", "harness/__init__.py", "harness/errors.py", "harness/files.py"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, checkout / name)
    for name in ("harness/seams", "harness/setup"):
        shutil.copytree(ROOT / name, checkout / name)
    done = subprocess.run([str(checkout / "bin/platform"), "up"], capture_output=True, text=True)

    assert done.returncode == 4
    assert done.stderr == f"platform: the checkout {checkout} has a blank or a colon in its path: move it\n"


def test_a_user_without_a_home_is_told_so(
    bin_platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("PLATFORM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)

    assert bin_platform("up") == 4
    assert capsys.readouterr().err.startswith("platform: this user has no home folder: set HOME")


def test_an_environment_in_which_nothing_was_installed_is_not_marked(
    bin_platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands(monkeypatch, "importlib.metadata")

    assert bin_platform("up") == 6
    assert not list((tmp_path / "cache/platform").glob("python-*/finished"))


def test_descriptors_that_are_closed_are_given_to_no_other_file(made: Path, tmp_path: Path) -> None:
    python = next(made.glob("platform/python-runtime-*/bin/python"))
    script = "import os; open({!r}, 'w').write(' '.join(os.readlink(f'/proc/self/fd/{{it}}') for it in range(3)))"
    python.write_text(f"#!{sys.executable} -I\n{script.format(str(tmp_path / 'seen'))}\n")
    line = f"{ROOT}/bin/platform up 0<&- >&- 2>&-"
    environment = {"PATH": os.environ["PATH"], "PLATFORM_CACHE": str(made)}
    done = subprocess.run(["sh", "-c", line], env=environment)

    assert done.returncode == 0
    assert (tmp_path / "seen").read_text().split() == [os.devnull] * 3
