"""Standing clusters: which one is meant, and what a person is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import Misconfigured
from harness.runs.standing import chosen, how_to_reach, remember, standing, standing_on
from harness.runs.workplace import in_use
from tests.places import OUTPUTS

KEPT, OTHER, ENDED = "20260801-120000-ab12", "20260801-130000-cd34", "20260801-110000-ef56"


def a_folder(root: Path, run_id: str, *, stands: bool) -> Path:
    folder = root / ".runs" / run_id
    folder.mkdir(parents=True)
    (folder / "events.jsonl").touch()
    if stands:
        (folder / "operator.json").write_text("{}")
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The folder of the only run whose cluster stands; there is another one, that removed its own."""
    a_folder(tmp_path, ENDED, stands=False)
    return a_folder(tmp_path, KEPT, stands=True)


# -- which one is meant --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [False, True])
def test_where_no_cluster_stands_it_is_said_how_to_get_one(tmp_path: Path, runs: bool) -> None:
    if runs:
        a_folder(tmp_path, ENDED, stands=False)

    with pytest.raises(Misconfigured) as refused:
        chosen(tmp_path, None)
    assert str(refused.value) == (
        "no cluster stands here: build one with `make up`, or keep one with `make acceptance KEEP=1`"
    )
    assert standing(tmp_path) == []


def test_where_several_stand_one_must_be_named(tmp_path: Path, kept: Path) -> None:
    a_folder(tmp_path, OTHER, stands=True)

    with pytest.raises(Misconfigured) as refused:
        chosen(tmp_path, None)
    assert str(refused.value) == f"several clusters stand, choose one with RUN=ID: {KEPT}, {OTHER}"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (
            "20260801-120000-ab21",
            f"there is no run 20260801-120000-ab21: did you mean {KEPT}? clusters of these runs stand: {KEPT}",
        ),
        ("x", f"there is no run x: clusters of these runs stand: {KEPT}"),
        (".runs/x/", f"there is no run x: clusters of these runs stand: {KEPT}"),
        (".", f"there is no run : clusters of these runs stand: {KEPT}"),
    ],
)
def test_a_run_that_is_not_there_is_named_with_the_nearest_that_is(
    tmp_path: Path, kept: Path, named: str, said: str
) -> None:
    with pytest.raises(Misconfigured) as refused:
        chosen(tmp_path, named)

    assert str(refused.value) == said


def test_a_run_that_is_not_there_where_none_stands(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"^there is no run x: no cluster stands$"):
        chosen(tmp_path, "x")


def test_a_folder_without_a_record_is_no_run(tmp_path: Path, kept: Path) -> None:
    (kept / "events.jsonl").unlink()

    with pytest.raises(Misconfigured, match=f"there is no run {KEPT}"):
        chosen(tmp_path, KEPT)


@pytest.mark.parametrize("named", [None, ""])
def test_the_one_that_stands_need_not_be_named(tmp_path: Path, kept: Path, named: str | None) -> None:
    assert chosen(tmp_path, named) == kept
    assert standing(tmp_path) == [KEPT]


@pytest.mark.parametrize("named", [KEPT, f".runs/{KEPT}", f".runs/{KEPT}/", f"/somewhere/.runs/{KEPT}"])
def test_one_of_several_is_named_by_its_id_or_its_folder(tmp_path: Path, kept: Path, named: str) -> None:
    a_folder(tmp_path, OTHER, stands=True)

    assert chosen(tmp_path, named) == kept
    assert standing(tmp_path) == [KEPT, OTHER]


def test_what_a_killed_run_left_can_be_named(tmp_path: Path, kept: Path) -> None:
    """A run that was killed before it had an operator has a ground to remove, or containers."""
    with pytest.raises(Misconfigured, match=f"the cluster of run {ENDED} is gone: .*: {KEPT}"):
        chosen(tmp_path, ENDED)

    assert chosen(tmp_path, ENDED, gone_too=True) == tmp_path / ".runs" / ENDED


# -- how it is reached ---------------------------------------------------------------------------------------------


def test_every_line_to_paste_is_named(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line.split(maxsplit=1) for line in how_to_reach(kept, OUTPUTS, {"TARGET": "local"}).splitlines()]

    assert lines == [
        ["cluster", f"run {KEPT}, 3 machines on target local"],
        ["ssh", f"ssh -F .runs/{KEPT}/ssh_config coreos-0"],
        ["fleetctl", f"(. .runs/{KEPT}/env && fleetctl list-units)"],
        ["blog", "curl --resolve genkisugimoto.com:80:192.0.2.10 http://genkisugimoto.com/"],
        ["jpblog", "curl --resolve jp.genkisugimoto.com:80:192.0.2.10 http://jp.genkisugimoto.com/"],
        ["browser", "/etc/hosts: 192.0.2.10 genkisugimoto.com jp.genkisugimoto.com"],
        ["shell", f"bin/platform shell --run {KEPT}"],
        ["check", f"bin/platform check --run {KEPT}"],
        ["remove", f"bin/platform down --run {KEPT}"],
    ]


def test_a_run_that_is_named_in_what_is_pasted_is_found(tmp_path: Path, kept: Path) -> None:
    said = how_to_reach(kept, OUTPUTS, {})
    named = {line.split("--run ")[1] for line in said.splitlines() if "--run" in line}

    assert {chosen(tmp_path, name) for name in named} == {kept}


def test_files_are_named_from_where_the_person_is(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert f"ssh -F ../.runs/{KEPT}/ssh_config coreos-0\n" in how_to_reach(kept, OUTPUTS, {})


# -- which stand on a cache ----------------------------------------------------------------------------------------


def test_a_cluster_is_noted_beside_the_files_of_others_and_stale_notes_alone_go(tmp_path: Path, kept: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "clusters/notes").mkdir(parents=True)
    (cache / "clusters/prod-kubeconfig.yaml").write_text("mine")
    (cache / "clusters/prod").symlink_to(tmp_path / "nowhere/prod")
    ended = tmp_path / ".runs" / ENDED
    (cache / "clusters" / ENDED).symlink_to(ended)

    remember(cache, ended)
    remember(cache, kept)

    there = sorted(path.name for path in (cache / "clusters").iterdir())
    assert there == ["notes", f"platform-run-{KEPT}", "prod", "prod-kubeconfig.yaml"]
    assert standing_on(cache) == [str(kept)]


def test_a_cluster_that_an_older_version_noted_a_folder_higher_is_found(tmp_path: Path, kept: Path) -> None:
    (tmp_path / "cache/clusters").mkdir(parents=True)
    (tmp_path / "cache/clusters" / KEPT).symlink_to(kept)

    assert standing_on(tmp_path / "cache/platform") == [str(kept)]


def test_a_cluster_that_is_just_being_made_stands_on_its_cache_already(tmp_path: Path, kept: Path) -> None:
    ended = tmp_path / ".runs" / ENDED
    (tmp_path / "cache").mkdir()
    with in_use(ended, alone=True):
        remember(tmp_path / "cache", ended)
        remember(tmp_path / "cache", kept)

        assert standing_on(tmp_path / "cache") == [str(ended), str(kept)]
    assert standing_on(tmp_path / "cache") == [str(kept)]
