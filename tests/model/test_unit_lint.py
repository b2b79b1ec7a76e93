"""What is said of unit files before they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.model.unit_lint import lint, lint_files

PLAIN = "[Unit]\nDescription=a\n[Service]\nExecStart=/bin/true\n"


def said(text: str | bytes, name: str = "web.service") -> list[tuple[int, str, bool]]:
    data = text if isinstance(text, bytes) else text.encode()
    return [(remark.line, remark.text, remark.fails) for remark in lint(name, data)]


def of_fleet(*lines: str) -> list[tuple[int, str, bool]]:
    return said(PLAIN + "[X-Fleet]\n" + "".join(f"{line}\n" for line in lines))


def test_of_a_plain_unit_there_is_nothing_to_say() -> None:
    assert said(PLAIN) == []
    assert of_fleet('MachineMetadata="disk=ssd" "zone=a"', "Conflicts=web@*.service", "MachineOf=app.service") == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("web", "fleetctl would make it web.service"),
        ("web.target", "fleetctl would make it web.target.service"),
        ("w b.service", "fleet refuses a character"),
        ("wéb.service", "fleet refuses a character"),
        ("@1.service", "fleet refuses one that begins with @"),
        ("a" * 249 + ".service", "fleet refuses more than 256 bytes"),
        ("disk@1.mount", "fleet refuses a template of a mount"),
    ],
)
def test_names_that_fleet_does_not_take(name: str, reason: str) -> None:
    assert [text for _, text, fails in said(PLAIN, name) if reason in text and fails]


def test_what_fleet_refuses_is_told_with_its_line() -> None:
    assert said("[Unit]\nDescription\n") == [
        (2, "fleet refuses it: unexpected newline encountered while parsing option name: 'Description'", True)
    ]


@pytest.mark.parametrize(
    ("line", "ignored"),
    [
        ("MachineMetadata=ssd", "'ssd'"),
        ("MachineMetadata=zone=", "'zone='"),
        ("MachineMetadata=a=b disk=ssd", "'a=b disk=ssd'"),
        ('MachineMetadata="a=b" "c"', "'c'"),
        ('MachineMetadata="a=b"  "c=d"', "''"),
    ],
)
def test_metadata_that_fleet_ignores_without_a_word_is_said_aloud(line: str, ignored: str) -> None:
    (remark,) = of_fleet("Conflicts=x", line)

    assert remark[0] == 7 and remark[2]
    assert remark[1].startswith(
        f"fleet ignores MachineMetadata {ignored}, which is not key=value: the unit may run on any"
    )


@pytest.mark.parametrize(
    ("lines", "remark"),
    [
        (["Conflict=a"], "fleet knows no Conflict in [X-Fleet], and goes without it"),
        (["MachineOf=a.service b.service"], "MachineOf is one name for fleet, 'a.service b.service'"),
        (["Global=ja"], "Global=ja is false for fleet: say true or false"),
        (["MachineID=coreos-0"], "MachineID coreos-0 is no machine's"),
        (["Global=true", "MachineOf=a.service"], "fleet refuses it: Global and MachineOf exclude each other"),
        (["X-Conflicts=a", "Replaces=b"], "fleet refuses it: Conflicts and Replaces exclude each other"),
        (
            ["MachineOf=a.service", "Conflicts=a*"],
            "fleet refuses it: it must be where a.service is, and not where a* is",
        ),
    ],
)
def test_options_that_fleet_takes_otherwise(lines: list[str], remark: str) -> None:
    assert [text for _, text, fails in of_fleet(*lines) if text.startswith(remark) and fails]


def test_lines_that_fleet_passes_over() -> None:
    text = (
        "Description=lost\n[Unit]\n# remark \\\nAfter=docker.service\nDescription=a\n[Service]\nExecStart=/a \\ \nB=c\n"
    )

    assert [(line, fails) for line, _, fails in said(text)] == [(1, True), (4, True), (7, True)]


def test_what_is_only_worth_a_look_fails_nothing() -> None:
    text = (PLAIN + "[X-Fleet]\nX-Conflicts=b\n[Install]\nWantedBy=a\n").encode() + b"# caf\xe9\n"

    assert [(line, fails) for line, _, fails in said(text)] == [(6, False), (8, False), (9, False)]


def test_files_are_looked_at_together(tmp_path: Path) -> None:
    for folder in ("units", "app"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "web.service").write_text(PLAIN)
    (tmp_path / "gone.service").symlink_to("nowhere")
    files = [tmp_path / "units/web.service", tmp_path / "app/web.service", tmp_path / "gone.service", tmp_path / "app"]

    assert lint_files(files[:1]).lines == []
    assert lint_files(files[:1]).good == [f"{files[0]}: good, and may run on any machine"]
    remarks = lint_files(files)
    assert remarks.fail
    assert [line.removeprefix(f"{tmp_path}/") for line in remarks.lines] == [
        f"units/web.service: {tmp_path}/app/web.service is of the same name, and fleet would drop one of them",
        f"app/web.service: {tmp_path}/units/web.service is of the same name, and fleet would drop one of them",
        "gone.service: it cannot be read as a unit file: No such file or directory",
        "app: it cannot be read as a unit file: Is a directory",
    ]
    assert remarks.good == []


@pytest.mark.parametrize(
    ("section", "where"),
    [
        ("", "on any machine"),
        ("Global=yes", "on every machine"),
        ("Global=yes\nMachineMetadata=disk=ssd", "on every machine with disk=ssd"),
        ('MachineMetadata="disk=ssd" "disk=hdd" "zone=a"', "on any machine with disk=hdd or disk=ssd and with zone=a"),
        ("MachineID=0123abcd", "on machine 0123abcd"),
        ("MachineOf=app.service", "on any machine where app.service is"),
        ("Conflicts=a.service b@*", "on any machine where no a.service is and where no b@* is"),
        ("X-Conflicts=a.service", "on any machine where no a.service is"),
    ],
)
def test_a_good_file_says_so_and_where_its_unit_may_run(tmp_path: Path, section: str, where: str) -> None:
    file = tmp_path / "web.service"
    file.write_text(f"{PLAIN}[X-Fleet]\n{section}\n" if section else PLAIN)

    assert lint_files([file]).good == [f"{file}: good, and may run {where}"]
