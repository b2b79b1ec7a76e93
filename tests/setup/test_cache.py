"""The cache: what is half-written never counts, what is finished is made once."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import EnvironmentFailed
from harness.setup.cache import Cache, cache_folder, key_of, note_cluster, notes_of_clusters, places


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_text("one")
    (source / "sub/b").write_text("two")
    return source


def write(text: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / "file").write_text(text)

    return build


def never(folder: Path) -> None:
    raise AssertionError("it was built already")


# -- what must not count -------------------------------------------------------------------------------------------


def test_a_build_that_fails_leaves_nothing_that_counts(cache: Cache) -> None:
    def half(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise EnvironmentFailed("the network is gone")

    with pytest.raises(EnvironmentFailed, match="the network is gone"):
        cache.entry("fleet", "k1", half)

    built = cache.entry("fleet", "k1", write("whole"))
    assert (built / "file").read_text() == "whole"
    assert [file.name for file in built.iterdir()] == ["file"]


def test_an_interrupted_build_leaves_nothing_that_counts(cache: Cache) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.entry("fleet", "k1", interrupted)

    assert (cache.entry("fleet", "k1", write("whole")) / "file").read_text() == "whole"


def test_an_entry_that_was_half_written_is_made_again(cache: Cache) -> None:
    partial = cache.folder / "fleet-k1.partial"
    (partial / "deep").mkdir(parents=True)
    (partial / "deep/rest").write_text("of a killed process")

    built = cache.entry("fleet", "k1", write("whole"))

    assert sorted(file.name for file in built.iterdir()) == ["file"]
    assert not partial.exists()


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


KEY = "0123456789ab"
OURS = (
    f"fleet-{KEY}/fleetd",
    f"provider-{KEY}.partial/half",
    f"python-runtime-{KEY}/finished",
    f"context-{KEY}/Dockerfile",
    "go-build-files/pkg/mod",
    "fleet.lock",
    "provider.lock",
    f"platform-base-{KEY}.lock",
)
STRANGERS = (
    "photo.jpg",
    "fleet-plans/letter",
    f"photos-{KEY}/one",
    "go/src/mine.go",
    "work.lock",
    "registry/of/somebody",
    "clusters/prod-kubeconfig.yaml",
    "bytecode/thesis.txt",
    "bytecode/x.cpython-311.pyc",
    "CACHEDIR.TAG",
)


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_clearing_takes_our_entries_and_nobody_elses(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    fill(folder, *OURS, *STRANGERS)
    (folder / "clusters/empty").mkdir()
    (folder / "provider.lock").write_text("of somebody's package manager")

    left = Cache(folder).clear()

    theirs = (*STRANGERS, "provider.lock")
    assert left == sorted({name.split("/")[0] for name in theirs})
    assert files_of(folder) == sorted(theirs)
    assert (folder / "provider.lock").read_text() == "of somebody's package manager"
    assert (folder / "clusters/empty").is_dir()


def test_in_a_folder_that_was_made_here_too_what_others_put_into_it_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    theirs = [name for name in STRANGERS if name != "CACHEDIR.TAG"]
    fill(cache.folder, *OURS, *theirs, "fleet.lock", "python-dev.lock")

    assert cache.clear() == sorted({name.split("/")[0] for name in theirs})
    assert files_of(cache.folder) == sorted(("CACHEDIR.TAG", *theirs))


def test_a_folder_of_somebody_elses_stays_though_it_is_empty_of_ours(tmp_path: Path) -> None:
    fill(tmp_path / "disk", "letter")
    (tmp_path / "empty").mkdir()

    assert (Cache(tmp_path / "disk").clear(), Cache(tmp_path / "empty").clear()) == (["letter"], [])
    assert (tmp_path / "empty").is_dir()


def test_a_folder_that_we_made_goes_whole(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    fill(cache.folder, *OURS, "bytecode/root/x.cpython-311.pyc", "bytecode/root/y.cpython-311.pyc.140")
    (tmp_path / "root/.runs/a").mkdir(parents=True)
    note_cluster(cache.folder, tmp_path / "root/.runs/a")

    assert cache.clear() == []
    assert not cache.folder.exists()
    assert (tmp_path / "root/.runs/a").is_dir()


def test_only_links_of_our_own_are_removed_and_none_is_followed(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "letter", ".runs/a/letter")
    cache = Cache(tmp_path / "cache")
    (cache.folder / "clusters").mkdir()
    theirs = ["clusters/elsewhere", "clusters/run", f"fleet-{KEY}"]
    for name in theirs:
        (cache.folder / name).symlink_to(tmp_path / "elsewhere")
    note_cluster(cache.folder, tmp_path / "elsewhere")
    (cache.folder / "clusters/a").symlink_to(tmp_path / "elsewhere/.runs/a")  # an older version's

    assert [note.name for note in notes_of_clusters(cache.folder)] == ["a", "platform-run-elsewhere"]
    assert cache.clear() == ["clusters", f"fleet-{KEY}"]
    links = [path for path in cache.folder.rglob("*") if path.is_symlink()]
    assert sorted(str(path.relative_to(cache.folder)) for path in links) == theirs
    assert files_of(tmp_path / "elsewhere") == [".runs/a/letter", "letter"]


# Of each lock: what is made under it
UNDER = {
    "fleet": f"fleet-{KEY}.partial/half",
    "provider": f"provider-{KEY}/finished",
    "system": f"system-{KEY}/etc/hosts",
    "go-build-files": "go-build-files/pkg/mod",
    f"platform-machine-{KEY}": f"context-{KEY}/Dockerfile",
}


def _clear(folder: Path) -> list[str]:
    return Cache(folder).clear()


@pytest.mark.parametrize("how", [fcntl.LOCK_EX, fcntl.LOCK_SH])
@pytest.mark.parametrize("lock", UNDER)
def test_what_another_process_makes_is_passed_over_and_named(cache: Cache, lock: str, how: int) -> None:
    fill(cache.folder, *UNDER.values())
    with multiprocessing.get_context("fork").Pool(1) as pool:
        with cache.locked(lock, how):
            assert pool.apply(_clear, (cache.folder,)) == sorted([UNDER[lock].split("/")[0], f"{lock}.lock"])
        assert files_of(cache.folder) == sorted(["CACHEDIR.TAG", UNDER[lock], f"{lock}.lock"])
        assert pool.apply(_clear, (cache.folder,)) == []
    assert not cache.folder.exists()


def _lock_again(folder: Path, waiting: Path) -> bool:
    waiting.touch()
    with Cache(folder).locked("fleet"):
        return (folder / "fleet.lock").exists()


def test_who_waited_for_a_lock_that_was_removed_holds_the_new_one(cache: Cache, tmp_path: Path) -> None:
    waiting = tmp_path / "waiting"
    with multiprocessing.get_context("fork").Pool(1) as pool:
        with cache.locked("fleet"):
            waits = pool.apply_async(_lock_again, (cache.folder, waiting))
            while not waiting.exists():
                time.sleep(0.01)
            time.sleep(0.1)
            (cache.folder / "fleet.lock").unlink()
        assert waits.get(timeout=10) is True


def test_backups_are_told_to_pass_a_folder_over_that_we_made_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()

    assert (Cache(tmp_path / "made").folder / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f")
    assert not (Cache(tmp_path / "there").folder / "CACHEDIR.TAG").exists()


def test_an_entry_that_clearing_would_not_know_is_not_made(cache: Cache) -> None:
    with pytest.raises(ValueError, match="it would never be cleaned"):
        cache.entry("new-thing", KEY, write("x"))


def test_a_folder_that_cannot_be_made_is_the_environments_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(EnvironmentFailed, match=r"the cache folder .*file/cache cannot be made: Not a directory"):
        Cache(tmp_path / "file/cache")


def _refused(folder: str) -> bool:
    """Whether a user without rights meets EnvironmentFailed, and no bare OSError, in a folder of somebody else."""
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        Cache(Path(folder)).entry("fleet", "k1", never)
    except EnvironmentFailed as refused:
        return folder in str(refused)
    except OSError:
        return False
    return False


def test_a_folder_that_cannot_be_written_is_the_environments_failure() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_refused, ("/usr",)) is True


def test_too_little_space_is_the_environments_failure(cache: Cache) -> None:
    with pytest.raises(EnvironmentFailed) as refused:
        cache.require_space(2**60)

    assert "GiB free, 1073741824 GiB are needed" in str(refused.value)
    assert str(cache.folder) in str(refused.value)
    assert "PLATFORM_CACHE" in str(refused.value)


def test_enough_space_is_enough(cache: Cache) -> None:
    cache.require_space(1)


# -- what is made once ---------------------------------------------------------------------------------------------


def test_an_entry_is_built_once(cache: Cache) -> None:
    first = cache.entry("fleet", "k1", write("whole"))

    assert cache.entry("fleet", "k1", never) == first
    assert Cache(cache.folder).entry("fleet", "k1", never) == first


def test_other_keys_and_names_are_other_entries(cache: Cache) -> None:
    entries = {
        cache.entry(name, key, write(name + key)): name + key for name in ("fleet", "provider") for key in ("k1", "k2")
    }

    assert len(entries) == 4
    assert all((folder / "file").read_text() == text for folder, text in entries.items())


def _build(folder: Path, marks: Path) -> None:
    def build(partial: Path) -> None:
        (marks / str(os.getpid())).touch()
        (partial / "first").touch()
        time.sleep(0.2)
        (partial / "last").touch()

    built = Cache(folder).entry("fleet", "k1", build)
    assert sorted(file.name for file in built.iterdir()) == ["first", "last"]


def test_processes_at_once_build_an_entry_once(cache: Cache, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_build, args=(cache.folder, marks)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0] * 4
    assert len(list(marks.iterdir())) == 1


def _hold_and_die(folder: Path, held: Path) -> None:
    with Cache(folder).locked("fleet"):
        held.touch()
        os._exit(9)


def test_the_lock_of_a_killed_process_is_free(cache: Cache, tmp_path: Path) -> None:
    held = tmp_path / "held"
    process = multiprocessing.get_context("fork").Process(target=_hold_and_die, args=(cache.folder, held))
    process.start()
    process.join()

    assert (held.exists(), process.exitcode) == (True, 9)
    assert cache.entry("fleet", "k1", write("whole")).is_dir()


def test_entries_of_other_names_are_built_side_by_side(cache: Cache) -> None:
    with cache.locked("image"):
        assert cache.entry("fleet", "k1", write("whole")).is_dir()


def _try(folder: Path, how: int) -> bool:
    """Whether another process gets the lock at once."""
    try:
        with Cache(folder).locked("go", how | fcntl.LOCK_NB):
            return True
    except BlockingIOError:
        return False


@pytest.mark.parametrize(
    ("held", "asked", "free"),
    [
        (fcntl.LOCK_EX, fcntl.LOCK_EX, False),
        (fcntl.LOCK_EX, fcntl.LOCK_SH, False),
        (fcntl.LOCK_SH, fcntl.LOCK_EX, False),
        (fcntl.LOCK_SH, fcntl.LOCK_SH, True),
    ],
)
def test_a_lock_that_is_held_is_not_waited_for_when_it_is_asked_not_to(
    cache: Cache, held: int, asked: int, free: bool
) -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        with cache.locked("go", held):
            assert pool.apply(_try, (cache.folder, asked)) is free
            assert pool.apply(_try, (cache.folder, fcntl.LOCK_EX)) is False
        assert pool.apply(_try, (cache.folder, fcntl.LOCK_EX)) is True


def test_a_lock_is_exclusive_unless_something_else_is_said(cache: Cache) -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool, cache.locked("go"):
        assert pool.apply(_try, (cache.folder, fcntl.LOCK_SH)) is False


# -- where, and under which key ------------------------------------------------------------------------------------


def test_the_folder_is_the_users_own_or_the_one_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PLATFORM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/user")
    assert cache_folder() == Path("/home/user/.cache/platform")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == Path("/home/user/.cache/platform")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_folder() == Path("/cache/platform")
    assert places() == [Path("/cache/platform")]
    monkeypatch.setenv("PLATFORM_CACHE", "/large/disk")
    assert cache_folder() == Path("/large/disk/platform")
    assert places() == [Path("/large/disk/platform"), Path("/large/disk")]


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda source: (source / "sub/b").write_text("three"),
    "length": lambda source: (source / "a").write_text("one "),
    "name": lambda source: (source / "a").rename(source / "c"),
    "folder": lambda source: (source / "sub").rename(source / "provider"),
    "mode": lambda source: (source / "a").chmod(0o755),
    "one more": lambda source: (source / "empty").touch(),
    "one less": lambda source: (source / "a").unlink(),
    "moved text": lambda source: ((source / "a").write_text("on"), (source / "sub/b").write_text("etwo")),
    # the image's masked units are links to /dev/null; and a link that leads nowhere here leads somewhere in the image
    "link": lambda source: (source / "masked.service").symlink_to("/dev/null"),
    "link to nowhere": lambda source: (source / "link").symlink_to("/of/the/image"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_key_changes_with_a_folders(source: Path, change: str) -> None:
    before = key_of(source)
    CHANGES[change](source)

    assert key_of(source) != before


def test_a_key_changes_with_where_a_link_leads(source: Path) -> None:
    (source / "link").symlink_to("/of/the/image")
    before = key_of(source)
    (source / "link").unlink()
    (source / "link").symlink_to("/of/another/image")

    assert key_of(source) != before


def test_a_key_does_not_change_with_time_or_place(source: Path, tmp_path: Path) -> None:
    before = key_of(source)
    os.utime(source / "a", (1, 1))
    (source / "a").chmod(0o600)
    moved = source.rename(tmp_path / "moved")

    assert key_of(moved) == before


def test_a_key_changes_with_texts_and_their_order(source: Path) -> None:
    keys = [key_of(), key_of("a"), key_of("b"), key_of("a", "b"), key_of("b", "a"), key_of("ab"), key_of(source, "a")]

    assert len(set(keys)) == len(keys)
    assert all(len(key) == 12 and int(key, 16) >= 0 for key in keys)


def test_a_key_changes_with_a_single_file(source: Path) -> None:
    before = key_of(source / "a")
    assert key_of(source / "a") == before
    (source / "a").write_text("changed")
    assert key_of(source / "a") != before
