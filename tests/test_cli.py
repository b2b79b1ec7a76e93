"""bin/platform: the exit status of each way in which a command ends, and the few lines before any package is there."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness import cli
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
from harness.record import Recorder

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ["acceptance", "shell", "setup", "test", "lint", "report", "clean", "use-new-discovery-url", "deploy-blog"]

Platform = Callable[..., int]


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Whatever a command makes or removes by mistake, it is not this project's."""
    for name in ("infra/local/target.json", "infra/cloud/target.json"):
        (tmp_path / "root" / name).parent.mkdir(parents=True)
        (tmp_path / "root" / name).write_text("{}")
    monkeypatch.setattr(cli, "ROOT", tmp_path / "root")
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TARGET", raising=False)
    return tmp_path / "root"


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """The status of a command that ends with an exception."""

    def end(error: BaseException) -> int:
        def command(arguments: object) -> int:
            raise error

        monkeypatch.setattr(cli, "_setup", command)
        return cli.main(["setup"])

    return end


# -- wrong usage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["no-such-command"],
        ["acceptance", "--no-such-option"],
        ["acceptance", "--target"],
        ["setup", "too many"],
        ["report"],
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


@pytest.mark.parametrize("command", ["acceptance", "shell"])
def test_an_unknown_target_is_4_and_names_those_there_are(
    command: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "--target", "moon"]) == 4
    assert capsys.readouterr().err == "platform: there is no target moon: targets are cloud, local\n"
    assert not (checkout / ".runs").exists()


def test_an_unknown_target_in_the_environment_is_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TARGET", "../local")

    assert cli.main(["acceptance"]) == 4
    assert "there is no target ../local" in capsys.readouterr().err


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
    assert cli._pytest_status(pytest_status) == status


# -- a command that ends well --------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_is_0(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    assert "usage: " in capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--help"])
    said = capsys.readouterr().out

    assert [command for command in COMMANDS if command not in said] == []


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
    for folder in (tmp_path / "cache/fleet-abc", checkout / ".runs/a"):
        folder.mkdir(parents=True)

    assert cli.main(["clean"]) == 0
    assert not (tmp_path / "cache").exists()
    assert not (checkout / ".runs").exists()
    assert (checkout / "infra/local/target.json").exists()


def test_the_module_ends_with_the_commands_status() -> None:
    command = [sys.executable, "-m", "harness.cli", "no-such-command"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    assert subprocess.run(command, env=environment, capture_output=True).returncode == 4


# -- bin/platform, before there are packages -----------------------------------------------------------------------


def old_python(tmp_path: Path, prelude: str) -> subprocess.CompletedProcess[str]:
    script = f"import runpy, sys\n{prelude}\nsys.argv = ['platform', 'acceptance']\n"
    script += f"runpy.run_path({str(ROOT / 'bin/platform')!r}, run_name='__main__')"
    environment = {**os.environ, "PLATFORM_CACHE": str(tmp_path / "cache")}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "prelude",
    [
        pytest.param("sys.version_info = (3, 10, 14)\nsys.version = '3.10.14 (main)'", id="3.10"),
        # there, list[str] is a TypeError: nothing may stumble before the version was looked at
        pytest.param(
            "import builtins\nclass Old(list): __class_getitem__ = None\nbuiltins.list = Old\n"
            "sys.version_info = (3, 8, 10)\nsys.version = '3.8.10 (default)'",
            id="3.8",
        ),
    ],
)
def test_an_old_python_is_refused_with_one_line(tmp_path: Path, prelude: str) -> None:
    done = old_python(tmp_path, prelude)

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("platform: Python 3.11 or newer is needed, this is 3.")
    assert done.stderr.count("\n") == 1
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
    assert said == f"platform: the Python environment cannot be made in {tmp_path}/file/cache: Not a directory\n"


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
