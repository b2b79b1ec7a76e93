"""Units: what is read of their files (as fleet reads them), and where they run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.drivers.units import UnitFile, UnitState, UnitStates, read_units
from harness.errors import AnswerNotUnderstood, CommandFailed, ExitStatus, Misconfigured, PlatformWrong
from tests.transcripts.machines import FOLDER, UNITS, RecordedMachines

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Reads a unit file with this text."""

    def read(text: str) -> UnitFile:
        path = tmp_path / "some.service"
        path.write_text(text)
        return UnitFile.read(path)

    return read


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[Service]\nExecStart\n", 2, "unexpected newline encountered while parsing option name: 'ExecStart'"),
        ("[Unit]\n\n# remark\n[Service\nType=simple\n", 4, "unable to find end of section"),
        ("[Unit]\nDescription=a\n[Service] # remark\n", 3, "found garbage after section name: '# remark'"),
        ("[Unit]\nDescription=a\nrest", 3, "unexpected end of file"),
        ("[Unit]\nDescription=" + "a" * 2048 + "\n", 2, r"line too long \(max 2048 bytes\)"),
    ],
)
def test_what_fleet_refuses_is_told_with_file_and_line(read: Any, text: str, line: int, reason: str) -> None:
    with pytest.raises(Misconfigured, match=rf"some\.service:{line}: fleet refuses it: {reason}"):
        read(text)


def test_bytes_count_and_not_characters(read: Any) -> None:
    with pytest.raises(Misconfigured, match=r"some\.service:2"):
        read("[Unit]\nDescription=" + "あ" * 700 + "\n")


def test_comment_that_is_too_long_counts_too(read: Any) -> None:
    with pytest.raises(Misconfigured, match=r"some\.service:2"):
        read("[Unit]\n#" + "-" * 2048 + "\n")


def test_continued_line_that_is_too_long_is_refused(read: Any) -> None:
    with pytest.raises(Misconfigured, match=r"some\.service:3"):
        read("[Service]\nExecStart=/bin/echo \\\n" + "a" * 2049 + "\n")


def test_line_of_2048_bytes_is_refused(read: Any) -> None:
    with pytest.raises(Misconfigured, match=r"some\.service:2"):
        read("[Unit]\nDescription=" + "a" * (2048 - len("Description=")) + "\n")


def test_line_of_2047_bytes_is_taken(read: Any) -> None:
    (option,) = read("[Unit]\nDescription=" + "a" * (2047 - len("Description=")) + "\n").options

    assert len(option[2]) == 2047 - len("Description=")


def no_file(path: Path, what: str) -> None:
    match what:
        case "dangling link":
            path.symlink_to("nowhere")
        case "loop of links":
            path.symlink_to(path.name)
        case "folder":
            path.mkdir()


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("dangling link", "No such file or directory"),
        ("loop of links", "Too many levels of symbolic links"),
        ("folder", "Is a directory"),
    ],
)
def test_what_is_no_file_is_said_in_one_line(tmp_path: Path, what: str, reason: str) -> None:
    (tmp_path / "a.service").write_text("[Unit]\n")
    no_file(tmp_path / "b.service", what)

    with pytest.raises(Misconfigured) as refused:
        read_units(tmp_path)
    assert str(refused.value) == f"{tmp_path}/b.service cannot be read as a unit file: {reason}"


def test_what_an_editor_left_is_no_unit(tmp_path: Path) -> None:
    (tmp_path / "a.service").write_text("[Unit]\nDescription=a\n")
    (tmp_path / ".#a.service").symlink_to("somebody@somewhere.4711")
    (tmp_path / ".a.service").write_text("junk")

    assert [unit.name for unit in read_units(tmp_path)] == ["a.service"]


def test_options_come_section_by_section(read: Any) -> None:
    text = "[Service]\nExecStartPre=-/a\nExecStartPre=/b\n[X-Fleet]\nGlobal=true\n[Service]\nExecStart=/c\n"

    assert read(text).options == (
        ("Service", "ExecStartPre", "-/a"),
        ("Service", "ExecStartPre", "/b"),
        ("Service", "ExecStart", "/c"),
        ("X-Fleet", "Global", "true"),
    )


NEWLINE = "unexpected newline encountered while parsing option name: '--name web image:1'"
REFUSED = {
    "behind-section.service": "found garbage after section name",
    "blank-behind-backslash-2.service": NEWLINE,
    "crlf-continued.service": NEWLINE,
}
# What the real fleet 1.0.0 stores, or says
STORED = {
    "blank-behind-backslash.service": [
        ("Service", "ExecStart", "/usr/bin/docker run \\\n--env A=b \\\n    image:1"),
        ("Service", "Restart", "always"),
    ],
    "bom.service": [("Unit", "Description", "web"), ("Service", "ExecStart", "/bin/true")],
    "comment-continues.service": [("Service", "Restart", "always")],
    "continued-into-blank.service": [
        ("Service", "ExecStop", '/bin/sh -c "a; \\\n    b; \\\n'),
        ("X-Fleet", "MachineOf", "web@1.service"),
    ],
    "continued-into-end.service": [("Service", "ExecStart", "/bin/true \\\n")],
    "latin-1.service": [("Unit", "Description", "caf\ufffd"), ("Service", "ExecStart", "/bin/true")],
    "line-separator-2.service": [
        ("Unit", "Description", "web\u2028X=front"),
        ("Service", "ExecStart", "/bin/true"),
    ],
    "line-separator.service": [("Unit", "Description", "web\u2028front"), ("Service", "ExecStart", "/bin/true")],
    "text-before-section.service": [("Unit", "Description", "web")],
}
CASES = Path(__file__).parent.parent / "cases/units"


def test_every_case_has_its_right_value() -> None:
    assert {path.name for path in CASES.iterdir()} == {*REFUSED, *STORED}


@pytest.mark.parametrize("name", STORED)
def test_real_files_are_read_as_fleet_stores_them(name: str) -> None:
    assert list(UnitFile.read(CASES / name).options) == STORED[name]


@pytest.mark.parametrize("name", REFUSED)
def test_real_files_are_refused_as_fleet_does(name: str) -> None:
    with pytest.raises(Misconfigured, match=rf"{name}:\d+: fleet refuses it: {REFUSED[name]}"):
        UnitFile.read(CASES / name)


def test_comments_and_empty_lines_are_no_options(read: Any) -> None:
    text = "# remark\n; remark\n\n[Unit]\n  # remark\nDescription=a # b ; c\n"

    assert read(text).options == (("Unit", "Description", "a # b ; c"),)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=a", "a"),
        ("A = a ", "a"),
        ("A=", ""),
        ("A=b=c", "b=c"),
        ("A=a \\\n  b", "a \\\n  b"),  # continued lines stay as they are written
        ("A=a \\\n  b \\\n\tc  ", "a \\\n  b \\\n\tc"),
        ("A=a \\\n# no remark here", "a \\\n# no remark here"),
        ("A=\\\n  b", "\\\n  b"),
    ],
)
def test_value(read: Any, text: str, value: str) -> None:
    assert read(f"[Service]\n{text}\n").options == (("Service", "A", value),)


def test_option_after_a_continued_one_is_its_own(read: Any) -> None:
    assert [name for _, name, _ in read("[Service]\nA=a \\\n  b=c\nD=d\n").options] == ["A", "D"]


def test_file_that_ends_in_a_continuation(read: Any) -> None:
    assert len(read("[Service]\nA=a \\").options) == 1


def test_file_without_options(read: Any) -> None:
    assert read("").options == read("# remark\n[Unit]\n").options == ()


@pytest.mark.parametrize("name", UNITS)
def test_options_are_those_that_fleet_stored(name: str) -> None:
    """The recorded files beside what fleet's API returned of them: the unit files may change, fleet does not."""
    units = json.loads(RecordedMachines().recorded["fleet/v1/units"]["coreos-0"])["units"]
    held = next(unit for unit in units if unit["name"] == name)["options"]

    assert UnitFile.read(FOLDER / "units" / name).options == tuple(
        (option["section"], option["name"], option["value"]) for option in held
    )


def test_units_of_the_checkout_can_be_read() -> None:
    files = read_units(ROOT / "units", ROOT / "units/app")

    assert {"entry.service", "blog.service", "jpblog.service"} <= {file.name for file in files}
    assert all(file.options for file in files)


def test_units_with_one_base_name_in_two_folders_are_refused(tmp_path: Path) -> None:
    for folder in ("units", "units/app"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "blog.service").write_text("[Unit]\n")

    with pytest.raises(Misconfigured, match=r"blog\.service: another folder holds a unit of this name"):
        read_units(tmp_path / "units", tmp_path / "units/app")


def test_folder_without_units_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured):
        read_units(tmp_path / "unitz")


def test_folder_without_units_beside_one_with_some_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blog.service").write_text("[Unit]\nDescription=a\n")

    with pytest.raises(Misconfigured, match="unitz"):
        read_units(tmp_path, tmp_path / "unitz")


def test_other_files_are_no_units(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("junk")
    (tmp_path / "blog.service").write_text("[Unit]\nDescription=a\n")

    assert [file.name for file in read_units(tmp_path)] == ["blog.service"]


# -- where they run: every machine is asked, whatever fleet believes -------------------------------------------------


@pytest.fixture
def machines() -> RecordedMachines:
    return RecordedMachines()


@pytest.fixture
def states(machines: RecordedMachines) -> UnitStates:
    return UnitStates(machines)


def shows(machines: RecordedMachines, unit: str, machine: str, active: str = "active", sub: str = "running") -> None:
    """Changes what systemd says of a unit there."""
    machines.recorded[f"systemctl show {unit}"][machine] = f"ActiveState={active}\nSubState={sub}\n"


def test_recorded_unit_runs_on_one_machine(states: UnitStates) -> None:
    assert states.machines_running("blog.service") == ["coreos-0"]


def test_unit_that_runs_twice_is_seen_on_both(machines: RecordedMachines, states: UnitStates) -> None:
    shows(machines, "blog.service", "coreos-1")

    assert states.machines_running("blog.service") == ["coreos-0", "coreos-1"]


@pytest.mark.parametrize(
    ("active", "sub"),
    [
        ("failed", "failed"),
        ("activating", "auto-restart"),
        ("activating", "start-pre"),
        ("inactive", "dead"),
        ("active", "exited"),
        ("deactivating", "stop"),
    ],
)
def test_unit_that_does_not_run(machines: RecordedMachines, states: UnitStates, active: str, sub: str) -> None:
    shows(machines, "blog.service", "coreos-0", active, sub)

    assert states.machines_running("blog.service") == []


def test_systemd_that_cannot_be_asked_is_told(machines: RecordedMachines, states: UnitStates) -> None:
    machines.fails("systemctl show", 1, "Failed to connect to bus")

    with pytest.raises(CommandFailed, match="Failed to connect to bus"):
        states.machines_running("blog.service")


@pytest.mark.parametrize("answer", ["", "junk\n", "active\n"])
def test_answer_of_systemd_that_is_junk_is_no_unit_that_runs(machines: RecordedMachines, answer: str) -> None:
    assert UnitStates(machines.on("systemctl show", answer)).machines_running("blog.service") == []


def test_unit_that_runs_nowhere(states: UnitStates) -> None:
    assert states.machines_running("ghost.service") == []


SHOWN = "LoadState={}\nActiveState={}\nSubState={}\nNRestarts={}\n"
GIVEN_UP = SHOWN.format("loaded", "failed", "failed", 5)


def test_states_are_those_of_machines_that_know_the_unit(machines: RecordedMachines) -> None:
    """Also of one that forgot its file and has its failure yet."""
    machines.on("systemctl show --property=LoadState", SHOWN.format("not-found", "inactive", "dead", 0))
    machines.on("systemctl show --property=LoadState", GIVEN_UP, "coreos-1")
    machines.on("systemctl show --property=LoadState", SHOWN.format("not-found", "failed", "failed", 2), "coreos-2")

    assert UnitStates(machines).states("ends.service") == {
        "coreos-1": UnitState("loaded", "failed", "failed", 5),
        "coreos-2": UnitState("not-found", "failed", "failed", 2),
    }


def test_status_is_what_systemd_says_of_a_unit_there(machines: RecordedMachines) -> None:
    machines.on("systemctl status --lines=20 -- ends.service", "failed: its last words", "coreos-1")

    assert UnitStates(machines).status("ends.service", "coreos-1") == "failed: its last words"


@pytest.mark.parametrize("answer", ["", "junk\n", "LoadState=loaded\n", GIVEN_UP.replace("5", "many")])
def test_state_that_cannot_be_read_is_told(machines: RecordedMachines, answer: str) -> None:
    with pytest.raises(AnswerNotUnderstood, match="systemctl show"):
        UnitStates(machines.on("systemctl show", answer)).states("ends.service")


@pytest.mark.parametrize(
    ("on", "said", "seen"),
    [
        ((), "blog.service runs on no machine, not on one", "none"),
        (("coreos-0", "coreos-2"), "blog.service runs on coreos-0, coreos-2, not on one", "coreos-0, coreos-2"),
    ],
)
def test_unit_that_does_not_run_on_one_machine_is_the_platforms_fault(
    machines: RecordedMachines, states: UnitStates, on: tuple[str, ...], said: str, seen: str
) -> None:
    for machine in ("coreos-0", "coreos-1", "coreos-2"):
        shows(machines, "blog.service", machine, *(() if machine in on else ("inactive", "dead")))

    with pytest.raises(PlatformWrong) as raised:
        states.machine_running("blog.service")

    wrong = raised.value
    assert type(wrong) is PlatformWrong and wrong.status is ExitStatus.PLATFORM_WRONG
    assert (str(wrong), wrong.expected, wrong.seen, wrong.paste) == (said, "one machine", seen, "fleetctl list-units")


@pytest.mark.parametrize("unit", ["ghost.service", "blog@2.service"])
def test_unit_that_no_machine_knows_runs_nowhere(states: UnitStates, unit: str) -> None:
    with pytest.raises(PlatformWrong, match=f"{unit} runs on no machine, not on one"):
        states.machine_running(unit)
