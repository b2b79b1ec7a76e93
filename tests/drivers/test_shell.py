"""The operator's shell: what carries over from one typed line to the next, and what does not."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.drivers.shell import OperatorShell
from harness.errors import CommandFailed, EnvironmentFailed, PlatformWrong, ReadOnly
from harness.record.log import Recorder
from harness.seams.process import Processes
from harness.seams.wait import Waiter
from tests.fakes import FakeRunner

Events = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "operator"
    folder.mkdir()
    return folder.resolve()


@pytest.fixture
def shell(recorder: Recorder, tmp_path: Path, folder: Path) -> OperatorShell:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    return OperatorShell.open(Processes(recorder), tmp_path / "operator.json", folder, environment)


# -- a shell that is not there, lines that fail --------------------------------------------------------------------


def test_a_shell_whose_state_is_gone_is_the_environments_failure(recorder: Recorder, tmp_path: Path) -> None:
    shell = OperatorShell(Processes(recorder), tmp_path / "never-made.json")

    with pytest.raises(EnvironmentFailed, match=r"the operator's shell of this run is gone \(.*never-made.json\)"):
        shell.type("true")


def test_a_failing_line_says_what_was_typed_and_keeps_the_state(shell: OperatorShell, folder: Path) -> None:
    shell.type("export KEPT=yes")
    line = 'export LATER="also kept"; mkdir -p sub; cd sub; ls missing'

    with pytest.raises(CommandFailed) as failed:
        shell.type(line)

    assert failed.value.paste == line
    assert shell.cwd == folder / "sub"
    assert (shell.env["KEPT"], shell.env["LATER"]) == ("yes", "also kept")


def test_terraform_that_fails_tells_its_first_error(shell: OperatorShell, folder: Path) -> None:
    program = folder / "bin/terraform"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\nprintf 'Error: Invalid index\\n\\n  on main.tf line 1\\n\\nError: another\\n' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    shell.type("export PATH=$PWD/bin:$PATH")

    with pytest.raises(CommandFailed, match=r"terraform apply` ended with 1: Invalid index$"):
        shell.type("terraform apply")


def test_lines_that_ended_as_they_may_are_remembered(shell: OperatorShell) -> None:
    """By them is known how far the runbook has come."""
    shell.type("true")
    shell.type("exit 3", ok={3})
    with pytest.raises(CommandFailed):
        shell.type("false")

    assert shell.typed == ["true", "exit 3"]


def test_exit_in_a_line_gives_its_status_and_keeps_the_state(shell: OperatorShell, folder: Path) -> None:
    result = shell.type("mkdir sub; cd sub; export BEFORE=1; exit 3; export AFTER=1", ok=None)

    assert result.status == 3
    assert shell.cwd == folder / "sub"
    assert shell.env["BEFORE"] == "1"
    assert "AFTER" not in shell.env
    assert shell.type("echo still here").stdout == "still here\n"


@pytest.mark.parametrize("line", ["false", "(exit 1)", "true && false", "echo text | grep -q other"])
def test_the_status_is_the_lines_own(shell: OperatorShell, line: str) -> None:
    assert shell.type(line, ok=None).status == 1


def test_a_line_that_is_no_bash_fails_and_harms_nothing(shell: OperatorShell) -> None:
    shell.type("export KEPT=yes")

    assert shell.type("echo 'unclosed", ok=None).status != 0
    assert shell.type("if then", ok=None).status != 0
    assert shell.type('echo "$KEPT"').stdout == "yes\n"


def test_a_line_that_becomes_another_program_keeps_the_state_before(shell: OperatorShell, folder: Path) -> None:
    shell.type("export KEPT=yes")

    assert shell.type("cd /; exec true").status == 0
    assert (shell.cwd, shell.env["KEPT"]) == (folder, "yes")


def test_a_line_that_is_ended_by_the_time_out_loses_no_state(shell: OperatorShell, tmp_path: Path) -> None:
    shell.type("export KEPT=yes")

    with pytest.raises(PlatformWrong, match=r"`sleep 60` did not end within 0.3 s"):
        shell.type("sleep 60", within=0.3)

    assert shell.type('echo "$KEPT"').stdout == "yes\n"


def test_a_line_that_is_killed_loses_no_state(shell: OperatorShell, folder: Path) -> None:
    shell.type("export KEPT=yes")

    assert shell.type("export HALF=done; cd /; kill -KILL $$", ok=None).status == -9
    assert (shell.cwd, shell.env["KEPT"]) == (folder, "yes")
    assert "HALF" not in shell.env


def test_what_a_killed_line_left_is_not_taken_for_the_next_ones(shell: OperatorShell, tmp_path: Path) -> None:
    shell.type("true")
    shell.type("kill -KILL $$", ok=None)

    assert sorted(file.name for file in tmp_path.iterdir()) == ["events.jsonl", "operator", "operator.json"]


def test_a_working_folder_that_a_line_removed_does_not_end_the_shell(shell: OperatorShell) -> None:
    shell.type("export KEPT=yes")
    shell.type("mkdir gone && cd gone && rmdir ../gone", ok=None)

    assert shell.type('cd / && echo "$KEPT"').stdout == "yes\n"


def test_a_line_that_breaks_path_keeps_what_else_was_exported(shell: OperatorShell) -> None:
    shell.type("export KEPT=yes PATH=/nowhere", ok=None)

    assert shell.env["KEPT"] == "yes"
    assert shell.env["PATH"] == "/nowhere"


# -- what carries over ---------------------------------------------------------------------------------------------


def test_the_working_folder_carries_over(shell: OperatorShell, folder: Path) -> None:
    shell.type("mkdir -p one/two")
    shell.type("cd one/two")
    assert shell.type("pwd").stdout == f"{folder}/one/two\n"
    shell.type("cd ..")
    assert shell.cwd == folder / "one"


@pytest.mark.parametrize("name", ["with space", "mit-Umlaut-ü", "line\nbreak", "quote'\""])
def test_a_working_folder_of_any_name_carries_over(shell: OperatorShell, folder: Path, name: str) -> None:
    (folder / name).mkdir()
    shell.export(NAME=name)
    shell.type('cd "$NAME"')

    assert shell.cwd == folder / name
    assert shell.type('cd .. && test -d "$NAME" && echo "$NAME"').stdout == f"{name}\n"


def test_exported_variables_carry_over_and_change_and_go(shell: OperatorShell) -> None:
    shell.type("export TUNNEL=10.0.0.1")
    assert shell.type('echo "$TUNNEL"').stdout == "10.0.0.1\n"
    shell.type('TUNNEL="$TUNNEL:22"')
    assert shell.type('echo "$TUNNEL"').stdout == "10.0.0.1:22\n"
    shell.type("unset TUNNEL")
    assert shell.type('echo "${TUNNEL-unset}"').stdout == "unset\n"
    assert "TUNNEL" not in shell.env


def test_what_a_command_answers_can_be_exported(shell: OperatorShell) -> None:
    shell.type("export ADDRESS=$(printf 10.208.0.2)")

    assert shell.env["ADDRESS"] == "10.208.0.2"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("two\nlines\n", id="newlines"),
        pytest.param("\n/etc\n", id="newline first"),
        pytest.param("carriage\r\nreturn\rs", id="carriage returns"),
        pytest.param("""single ' double " back ` \\ $HOME $(true)""", id="quotes"),
        pytest.param("a=b==c", id="equals signs"),
        pytest.param("Grüße, 世界 🚀", id="unicode"),
        pytest.param("\udcff\udcfe", id="bytes that are no text"),
        pytest.param("", id="empty"),
        pytest.param(" blank around ", id="blanks"),
        pytest.param("{line} %s {{", id="braces"),
    ],
)
def test_a_value_carries_over_as_it_is(shell: OperatorShell, folder: Path, value: str) -> None:
    shell.export(VALUE=value)
    shell.type("true")
    shell.type("printenv --null VALUE >shown")

    assert (folder / "shown").read_bytes() == os.fsencode(value) + b"\0"
    assert shell.env["VALUE"] == value


@pytest.mark.parametrize("name", ["status", "line", "after", "cwd"])
def test_a_variable_of_any_name_carries_over(shell: OperatorShell, name: str) -> None:
    shell.type(f"export {name}='its value'; false", ok=None)

    assert shell.env[name] == "its value"


def test_what_is_not_exported_ends_with_its_line(shell: OperatorShell) -> None:
    shell.type("LOCAL=1; f() { echo called; }; alias g=f; set -f")

    assert shell.type('echo "${LOCAL-unset}"').stdout == "unset\n"
    assert shell.type("f", ok=None).status == 127
    assert shell.type("echo $-").stdout == shell.type("true; echo $-").stdout


def test_an_exported_function_does_not_become_a_variable(shell: OperatorShell) -> None:
    shell.type("f() { echo called; }; export -f f")

    assert [name for name in shell.env if "BASH_FUNC" in name] == []


def test_the_shell_is_the_same_after_many_lines(shell: OperatorShell) -> None:
    shell.type("true")
    before = shell.env
    for _ in range(3):
        shell.type("true")

    assert shell.env == before


def test_another_process_types_the_next_line(shell: OperatorShell, recorder: Recorder, tmp_path: Path) -> None:
    shell.type("mkdir sub; cd sub; export KEPT=yes")
    other = OperatorShell(Processes(recorder), tmp_path / "operator.json")

    assert other.type('echo "$KEPT ${PWD##*/}"').stdout == "yes sub\n"


def test_nothing_of_the_harness_reaches_a_line(shell: OperatorShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_HARNESS", "1")

    assert "OF_THE_HARNESS" not in shell.type("env").stdout


# -- variables of this process's own -------------------------------------------------------------------------------


def test_variables_of_its_own_are_not_carried_on(shell: OperatorShell, recorder: Recorder, tmp_path: Path) -> None:
    shell.own = {"SSH_AUTH_SOCK": "/mine"}
    shell.type("export KEPT=yes")

    other = OperatorShell(Processes(recorder), tmp_path / "operator.json")
    assert other.env["KEPT"] == "yes"
    assert "SSH_AUTH_SOCK" not in other.env
    assert other.type('echo "${SSH_AUTH_SOCK-unset}"').stdout == "unset\n"


@pytest.mark.parametrize("line", ["true", "false", "unset SSH_AUTH_SOCK", "export SSH_AUTH_SOCK=/typed", "kill -9 $$"])
def test_variables_of_its_own_leave_what_was_there_before(
    shell: OperatorShell, recorder: Recorder, tmp_path: Path, line: str
) -> None:
    shell.export(SSH_AUTH_SOCK="/before")
    shell.own = {"SSH_AUTH_SOCK": "/mine"}
    shell.type(line, ok=None)

    assert shell.env["SSH_AUTH_SOCK"] == "/mine"
    assert OperatorShell(Processes(recorder), tmp_path / "operator.json").env["SSH_AUTH_SOCK"] == "/before"


def test_variables_of_its_own_are_laid_over_the_others(shell: OperatorShell) -> None:
    shell.export(SSH_AUTH_SOCK="/before", KEPT="yes")
    shell.own = {"SSH_AUTH_SOCK": "/mine"}

    assert shell.type('echo "$SSH_AUTH_SOCK $KEPT"').stdout == "/mine yes\n"
    assert (shell.env["SSH_AUTH_SOCK"], shell.env["KEPT"]) == ("/mine", "yes")
    assert shell.type('echo "$SSH_AUTH_SOCK"').stdout == "/mine\n"


def test_other_variables_change_and_go_beside_its_own(shell: OperatorShell) -> None:
    shell.own = {"SSH_AUTH_SOCK": "/mine"}
    shell.type("export A=1 B=2")
    shell.type("unset A; export B=3")

    assert "A" not in shell.env and shell.env["B"] == "3"


# -- the state's file ----------------------------------------------------------------------------------------------


def test_only_its_owner_can_read_the_state(shell: OperatorShell, tmp_path: Path) -> None:
    file = tmp_path / "operator.json"
    assert file.stat().st_mode & 0o777 == 0o600
    shell.type("umask 022; export A=b")
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["env"]["A"] == "b"


def test_only_its_owner_can_read_the_state_while_it_is_handed_over(shell: OperatorShell) -> None:
    assert shell.type("stat --dereference --format=%a /proc/$$/fd/3").stdout == "600\n"


# -- lines as a person types them ----------------------------------------------------------------------------------


def test_globs_are_expanded_as_typed(shell: OperatorShell, folder: Path) -> None:
    for name in ("units/b.service", "units/a.service", "units/app/c.service", "units/notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).touch()

    listed = "units/a.service units/b.service units/app/c.service\n"
    assert shell.type("echo units/*.service units/app/*.service").stdout == listed
    assert shell.type("echo '*.service' missing/*.service").stdout == "*.service missing/*.service\n"


def test_programs_are_found_on_the_shells_own_path(shell: OperatorShell, folder: Path) -> None:
    (folder / "bin").mkdir()
    tool = folder / "bin" / "a-tool-of-ours"
    tool.write_text("#!/bin/sh\necho found $1\n")
    tool.chmod(0o755)

    assert shell.type("a-tool-of-ours", ok=None).status == 127
    assert shell.type("./bin/a-tool-of-ours here").stdout == "found here\n"
    shell.type("export PATH=$PWD/bin:$PATH")
    assert shell.type("a-tool-of-ours 'on the path'").stdout == "found on the path\n"


def test_pipes_and_redirections_work(shell: OperatorShell, folder: Path) -> None:
    shell.type("printf 'b\\na\\n' | sort > sorted 2>errors")
    assert (folder / "sorted").read_text() == "a\nb\n"
    assert shell.type("echo to stderr >&2; wc -l < sorted").stdout.strip() == "2"
    assert shell.type("cat <<< word && export X=$PWD/known_hosts && echo ${X##*/}").stdout == "word\nknown_hosts\n"


def test_a_remark_is_no_command(shell: OperatorShell) -> None:
    assert shell.type("# Examine the output carefully").stdout == ""


def test_the_record_has_the_line_and_not_the_wrapping(shell: OperatorShell, events: Events) -> None:
    shell.type("echo $HOME | cat")

    (started,) = events("command.started")
    assert (started["line"], started["argv"], started["typed"]) == ("echo $HOME | cat", None, True)


def test_a_child_in_the_background_does_not_hang_the_shell(shell: OperatorShell) -> None:
    started = time.monotonic()
    shell.type("sleep 60 >/dev/null 2>&1 & export CHILD=$!", within=60)

    assert time.monotonic() - started < 30
    os.kill(int(shell.env["CHILD"]), signal.SIGKILL)


def test_a_child_in_the_background_that_keeps_the_lines_streams_is_ended_with_it(shell: OperatorShell) -> None:
    """What is typed is read to its end: a child that could still say something is waited for, up to the limit."""
    with pytest.raises(PlatformWrong, match=r"did not end within 1 s: said"):
        shell.type("echo said; export KEPT=yes; sleep 9 &", within=1)

    assert shell.env["KEPT"] == "yes"


def test_a_file_is_edited_where_the_shell_is(shell: OperatorShell, folder: Path) -> None:
    shell.type("mkdir sub; cd sub; printf 'machines = 3\\nurl = \"é\"\\n' > terraform.tfvars")
    shell.edit("terraform.tfvars", lambda text: text.replace("3", "4"))

    assert (folder / "sub/terraform.tfvars").read_text() == 'machines = 4\nurl = "é"\n'
    assert shell.type("cat terraform.tfvars").stdout == 'machines = 4\nurl = "é"\n'


def test_an_edit_that_fails_leaves_the_file_as_it_is(shell: OperatorShell, folder: Path) -> None:
    (folder / "notes").write_text("before")

    def fail(text: str) -> str:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        shell.edit("notes", fail)
    assert (folder / "notes").read_text() == "before"


def test_a_read_only_shell_edits_nothing(
    shell: OperatorShell, recorder: Recorder, tmp_path: Path, folder: Path
) -> None:
    (folder / "notes").write_text("before")
    refusing = OperatorShell(Processes(recorder), tmp_path / "operator.json", read_only=True)

    with pytest.raises(ReadOnly, match="notes is not edited: this run must change nothing"):
        refusing.edit("notes", lambda text: "after")
    assert (folder / "notes").read_text() == "before"


def test_a_read_only_shell_types_nothing(shell: OperatorShell, recorder: Recorder, tmp_path: Path) -> None:
    refusing = OperatorShell(Processes(recorder), tmp_path / "operator.json", read_only=True)

    with pytest.raises(ReadOnly, match="`touch made` is not typed"):
        refusing.type("touch made")
    assert not (shell.cwd / "made").exists()


# -- its end ---------------------------------------------------------------------------------------------------------


def test_an_agent_that_was_started_in_a_shell_ends_with_it(
    shell: OperatorShell, recorder: Recorder, tmp_path: Path
) -> None:
    shell.type("eval $(ssh-agent)")
    listens = Path(shell.env["SSH_AUTH_SOCK"])
    assert listens.is_socket()

    shell.close()

    assert not (tmp_path / "operator.json").exists()
    Waiter(recorder).until("the agent ends, and removes its socket", listens.exists, lambda it: not it, within=10)


def test_a_shell_without_an_agent_of_its_own_leaves_that_of_others(
    recorder: Recorder, tmp_path: Path, folder: Path
) -> None:
    runner = FakeRunner()
    shell = OperatorShell.open(runner, tmp_path / "operator.json", folder, {"SSH_AUTH_SOCK": "/somebody/else"})

    shell.close()

    assert runner.calls == [] and not (tmp_path / "operator.json").exists()
