"""etcd-backup: what is saved, what is restored, and what is refused before anything is changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from harness.commands import etcd_backup
from harness.commands.etcd_backup import main, read, restore, saved
from harness.drivers.etcd import Etcd
from harness.errors import ExitStatus, Misconfigured, PlatformWrong
from harness.seams.wait import NotAnswering

UNIT, OBJECT = "/_coreos.com/fleet/unit/aa", "/_coreos.com/fleet/job/blog.service/object"
TARGET, DEPLOYED = "/_coreos.com/fleet/job/blog.service/target", "/platform/deployed/blog"
BACKUP = {OBJECT: "{}", TARGET: "an id", UNIT: "text", DEPLOYED: "1 digest"}


class FakeEtcd:
    """Keys, and those that have a time to live; None has no quorum."""

    def __init__(self, keys: Mapping[str, str] | None, lives: Mapping[str, int] | None = None) -> None:
        self.keys = None if keys is None else dict(keys)
        self._lives = lives or {}
        self.put_in: list[str] = []

    def get(self, key: str, *, quorum: bool = False) -> dict[str, Any] | None:
        assert quorum, "one member alone may know what is past"
        if self.keys is None:
            raise NotAnswering(["curl"], 28, "", "timed out", "coreos-0")
        nodes = [
            {"key": name, "value": value} | ({"ttl": self._lives[name]} if name in self._lives else {})
            for name, value in self.keys.items()
            if name.startswith(f"{key}/")
        ]
        return {"key": key, "dir": True, "nodes": [{"key": f"{key}/x", "dir": True, "nodes": nodes}]} if nodes else None

    def put_all(self, keys: Mapping[str, str]) -> None:
        assert self.keys is not None
        self.keys |= keys
        self.put_in += keys


def fake(keys: Mapping[str, str] | None, lives: Mapping[str, int] | None = None) -> Any:
    return cast("Etcd", FakeEtcd(keys, lives))


def test_what_counts_is_saved_and_what_has_a_time_to_live_is_not() -> None:
    others = {"/services/blog/one": "address", "/_coreos.com/fleet/machines/aa": "here", f"{TARGET}-state": "for now"}

    assert saved(fake({**BACKUP, **others}, {f"{TARGET}-state": 5})) == BACKUP


def test_texts_and_jobs_are_restored_before_what_is_wanted_of_them() -> None:
    etcd = fake({})

    assert restore(etcd, BACKUP) == 4
    assert etcd.keys == BACKUP and etcd.put_in == [UNIT, OBJECT, TARGET, DEPLOYED]


def test_what_was_restored_in_part_is_restored_to_the_end() -> None:
    etcd = fake({UNIT: "text"})

    assert restore(etcd, BACKUP) == 3
    assert etcd.keys == BACKUP and UNIT not in etcd.put_in


@pytest.mark.parametrize("other", [{UNIT: "another text"}, {"/_coreos.com/fleet/unit/bb": "text"}])
def test_a_cluster_that_knows_something_else_is_left_alone(other: dict[str, str]) -> None:
    etcd = fake(other)
    with pytest.raises(Misconfigured, match=r"the cluster knows what the backup does not, such as /_coreos\.com"):
        restore(etcd, BACKUP)

    assert etcd.put_in == []


def test_without_a_quorum_nothing_is_saved_and_nothing_restored() -> None:
    for do in (saved, lambda etcd: restore(etcd, BACKUP)):
        with pytest.raises(PlatformWrong, match="etcd has no quorum: bring its members back first"):
            do(fake(None))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("junk", "is no backup: it is no JSON"),
        ("[]", "is no backup: it has no keys"),
        ("{}", "is no backup: it has no keys"),
        (json.dumps({UNIT: 1}), "is no backup: /_coreos.com/fleet/unit/aa is no key of one, or its value no text"),
        (json.dumps({"/services/blog/one": "x"}), "is no backup: /services/blog/one is no key of one"),
        ("[" * 100_000, "is no backup: it is no JSON"),
    ],
)
def test_what_is_no_backup_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "etcd.json"
    file.write_text(text)
    with pytest.raises(Misconfigured, match=said):
        read(file)


def test_a_backup_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "etcd.json"
    file.write_text(json.dumps(BACKUP))

    assert read(file) == BACKUP


def test_a_backup_that_is_missing_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["restore", "etcd.json"]) == ExitStatus.MISCONFIGURED
    assert capsys.readouterr().err == (
        "etcd-backup: etcd.json is missing: give the file that `etcd-backup save` wrote\n"
    )


def test_it_is_typed_in_the_folder_of_the_runbook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TARGET", raising=False)

    assert main(["save", "etcd.json"]) == ExitStatus.MISCONFIGURED
    assert "there is no infra/local here" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["save"], ["keep", "etcd.json"], ["save", "a", "b"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == ExitStatus.MISCONFIGURED
    assert "usage: etcd-backup" in capsys.readouterr().err


def test_an_interruption_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(do: str, file: Path) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(etcd_backup, "_done", interrupted)

    assert main(["save", "etcd.json"]) == ExitStatus.INTERRUPTED
    assert capsys.readouterr().err == "etcd-backup: interrupted\n"
