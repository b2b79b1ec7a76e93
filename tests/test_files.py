"""A file is replaced at once: whoever reads it, or is killed meanwhile, has the old one or the new."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import files
from harness.errors import EnvironmentFailed


class Killed(BaseException):
    """No process goes on after that."""


def killed(*arguments: object) -> None:
    raise Killed


@pytest.mark.parametrize("moment", ["write", "fsync", "fchmod"])
def test_a_write_that_is_killed_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    file = tmp_path / "run.json"
    files.put(file, "old")
    if moment == "write":
        monkeypatch.setattr(os, "fdopen", killed)
    else:
        monkeypatch.setattr(os, moment, killed)

    with pytest.raises(Killed):
        files.put(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_who_reads_meanwhile_has_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "env"
    files.put(file, "old")
    with file.open() as reader:
        files.put(file, "new")

        assert (reader.read(), file.read_text()) == ("old", "new")


def test_a_secret_is_for_its_owner_alone_and_a_mode_stays(tmp_path: Path) -> None:
    secret, given = tmp_path / "key", tmp_path / "given"
    given.touch(mode=0o640)
    given.chmod(0o640)
    files.put(secret, "secret", mode=0o600)
    files.put(given, "text", mode=0o600)

    assert [path.stat().st_mode & 0o777 for path in (secret, given)] == [0o600, 0o640]


@pytest.mark.parametrize("text", ["", '{"run_id": "a', "[]", "null", "\0" * 12, "\N{SNOWMAN}"])
def test_what_an_older_version_cut_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "cut.json").write_text(text)

    with pytest.raises(EnvironmentFailed) as told:
        files.read_object(tmp_path / "cut.json")
    assert str(told.value).startswith(f"{tmp_path}/cut.json is cut off (")
    assert "\n" not in str(told.value)


def test_what_was_put_is_read_again(tmp_path: Path) -> None:
    files.put(tmp_path / "whole.json", '{"name": "\N{SNOWMAN}"}')

    assert files.read_object(tmp_path / "whole.json") == {"name": "\N{SNOWMAN}"}
