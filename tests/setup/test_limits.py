"""What a cluster takes of this machine: too little is said before anything is made, with what to change."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import EnvironmentFailed
from harness.setup import limits
from harness.setup.limits import HARNESS_MIB, exclusive, room_for

LOCAL = {"memory_mib": 100, "inotify_instances": 10, "neighbours": 20}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that other users reach, as they do /tmp."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with room for exactly three machines, in which this process runs."""
    proc = tmp_path / "proc"
    (proc / "sys/fs/inotify").mkdir(parents=True)
    memory(proc, HARNESS_MIB + 300)
    inotify(proc, 30)
    neighbours(proc, 4, 64)
    (proc / str(os.getpid())).mkdir()
    return proc


def memory(proc: Path, mib: int) -> None:
    (proc / "meminfo").write_text(f"MemTotal:  99999999 kB\nMemFree:  1 kB\nMemAvailable:  {mib * 1024 + 7} kB\n")


def inotify(proc: Path, limit: int) -> None:
    (proc / "sys/fs/inotify/max_user_instances").write_text(f"{limit}\n")


def neighbours(proc: Path, used: int, limit: int) -> None:
    for name in ("net/stat", "sys/net/ipv4/neigh/default"):
        (proc / name).mkdir(parents=True, exist_ok=True)
    (proc / "sys/net/ipv4/neigh/default/gc_thresh3").write_text(f"{limit}\n")
    (proc / "net/stat/arp_cache").write_text(f"entries,allocs,destroys\n{used:08x} 0000ffff 00000001\n" * 2)


def descriptors(proc: Path, pid: int, *targets: str) -> None:
    """A process with these open."""
    (proc / f"{pid}/fd").mkdir(parents=True)
    for number, target in enumerate(targets):
        (proc / f"{pid}/fd/{number}").symlink_to(target)


def promised() -> dict[str, dict[str, int]]:
    found = json.loads((Path(tempfile.gettempdir()) / "platform-promised").read_text())
    assert isinstance(found, dict)
    return found


def promise(pid: int, machines: int) -> None:
    with exclusive("promised") as file:
        file.write_text(json.dumps({str(pid): {name: each * machines for name, each in LOCAL.items()}}))


# -- no room -------------------------------------------------------------------------------------------------------


def test_too_little_memory_is_said_with_what_fits(proc: Path) -> None:
    with pytest.raises(EnvironmentFailed) as refused, room_for(4, LOCAL, proc):
        pytest.fail("it must not come in")

    assert str(refused.value) == (
        "4 machines take 912 MiB of memory, and 812 MiB are free: remove a kept cluster (bin/platform down), "
        "or ask for 3 machines at most (MACHINES=3)"
    )


def test_what_the_first_machines_take_besides_is_counted_for_them_only(proc: Path) -> None:
    takes = {"memory_mib": 100, "entry_points": 2, "entry_point_memory_mib": 50}
    memory(proc, HARNESS_MIB + 400)

    with pytest.raises(EnvironmentFailed, match=r"^4 machines take 1012 MiB .* ask for 3 machines at most") as refused:
        room_for(4, takes, proc).__enter__()
    assert "912 MiB are free" in str(refused.value)
    with room_for(3, takes, proc):
        assert promised()[str(os.getpid())] == {"memory_mib": HARNESS_MIB + 400}


@pytest.mark.parametrize(
    ("machines", "patience", "refused"),
    [
        (20, "1", ""),
        (
            21,
            "1",
            "21 machines are too many for 2 processors within the runbook's time limits: be patient (PATIENCE=2), "
            "or ask for 20 machines at most (MACHINES=20)",
        ),
        (40, "2", ""),
        (
            41,
            "2.5",
            "41 machines are too many for 2 processors within the runbook's time limits: be patient (PATIENCE=3), "
            "or ask for 40 machines at most (MACHINES=40)",
        ),
        (41, "3", ""),
    ],
)
def test_too_few_processors_are_said_with_the_patience_that_it_takes(
    proc: Path, monkeypatch: pytest.MonkeyPatch, machines: int, patience: str, refused: str
) -> None:
    monkeypatch.setattr(limits, "processors", lambda: 2)
    monkeypatch.setenv("PATIENCE", patience)
    said = ""
    try:
        with room_for(machines, {"processor_percent": 10}, proc):
            pass
    except EnvironmentFailed as failed:
        said = str(failed)

    assert said == refused


def test_a_machine_of_one_processor_is_said_to_have_one(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "processors", lambda: 1)

    with pytest.raises(EnvironmentFailed, match=r"for 1 processor within .*: ask for 1 machines at most"):
        room_for(200, {"processor_percent": 100}, proc).__enter__()


@pytest.mark.parametrize("takes", [LOCAL, {}])
def test_where_no_machine_fits_nobody_is_told_to_ask_for_none(proc: Path, takes: dict[str, int]) -> None:
    memory(proc, HARNESS_MIB - 1)

    with pytest.raises(EnvironmentFailed, match=r"are free: remove a kept cluster \(bin/platform down\)$"):
        room_for(1, takes, proc).__enter__()


def test_too_few_inotify_instances_are_said_with_the_command_that_raises_them(proc: Path) -> None:
    inotify(proc, 29)

    with pytest.raises(EnvironmentFailed) as refused:
        room_for(3, LOCAL, proc).__enter__()
    assert str(refused.value) == (
        "3 machines take 30 inotify instances, and 29 of 29 are free: "
        "raise the limit (as root: sysctl fs.inotify.max_user_instances=32)"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes root's processes")
def test_inotify_instances_of_roots_processes_are_counted(proc: Path) -> None:
    descriptors(proc, 1, "anon_inode:inotify", "anon_inode:[eventpoll]", "/dev/null", "anon_inode:inotify")
    descriptors(proc, 77, "anon_inode:inotify")
    descriptors(proc, 1000, "anon_inode:inotify")
    os.chown(proc / "1000", 1000, 1000)
    (proc / "78").mkdir()  # one that ends just now has no descriptors any more

    inotify(proc, 33)
    with room_for(3, LOCAL, proc):
        pass
    inotify(proc, 32)
    with pytest.raises(EnvironmentFailed, match=r"and 29 of 32 are free: .*=64"):
        room_for(3, LOCAL, proc).__enter__()


def test_too_few_entries_of_the_arp_table_are_said_with_the_command_that_raises_them(proc: Path) -> None:
    neighbours(proc, 26, 64)

    with pytest.raises(EnvironmentFailed) as refused:
        room_for(2, LOCAL, proc).__enter__()
    assert str(refused.value) == (
        "2 machines take 40 entries of the ARP table, and 38 of 64 are free: "
        "raise the limit (as root: sysctl net.ipv4.neigh.default.gc_thresh3=128)"
    )


def test_a_limit_that_this_kernel_does_not_show_is_not_asked_for(proc: Path) -> None:
    (proc / "sys/net/ipv4/neigh/default/gc_thresh3").unlink()
    (proc / "net/stat/arp_cache").unlink()

    with room_for(3, LOCAL, proc):
        pass


def test_who_was_refused_is_promised_nothing(proc: Path) -> None:
    with pytest.raises(EnvironmentFailed):
        room_for(4, LOCAL, proc).__enter__()
    with room_for(3, LOCAL, proc):
        pass


# -- promises ------------------------------------------------------------------------------------------------------


def test_what_a_live_process_was_promised_is_not_free(proc: Path) -> None:
    (proc / "77").mkdir()
    promise(77, 1)

    with pytest.raises(EnvironmentFailed, match=r"and 712 MiB are free: .*MACHINES=2"):
        room_for(3, LOCAL, proc).__enter__()
    with room_for(2, {"memory_mib": 100}, proc):
        assert sorted(promised()) == sorted(["77", str(os.getpid())])
    assert list(promised()) == ["77"]


def test_inotify_instances_of_a_live_process_are_not_free(proc: Path) -> None:
    (proc / "77").mkdir()
    promise(77, 2)

    with pytest.raises(EnvironmentFailed, match="and 10 of 30 are free"):
        room_for(2, LOCAL | {"memory_mib": 0}, proc).__enter__()


def test_what_a_dead_process_was_promised_is_free_and_forgotten(proc: Path) -> None:
    promise(77, 50)

    with room_for(3, LOCAL, proc):
        assert promised() == {
            str(os.getpid()): {"memory_mib": HARNESS_MIB + 300, "inotify_instances": 30, "neighbours": 60}
        }
    assert promised() == {}


def test_two_clusters_at_once_are_each_seen_by_the_other(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory(proc, 2 * HARNESS_MIB + 300)
    (proc / "77").mkdir()
    with room_for(2, LOCAL, proc):
        monkeypatch.setattr(os, "getpid", lambda: 77)
        with pytest.raises(EnvironmentFailed, match="MACHINES=1"):
            room_for(2, LOCAL, proc).__enter__()
        with room_for(1, LOCAL, proc):
            assert len(promised()) == 2
        monkeypatch.undo()


@pytest.mark.parametrize("error", [EnvironmentFailed("no"), KeyboardInterrupt(), ValueError("what")])
def test_a_promise_is_gone_afterwards_however_it_ended(proc: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), room_for(3, LOCAL, proc):
        raise error

    assert promised() == {}


@pytest.mark.parametrize("torn", ["", '{"77": {"mem', "\0\0\0\0", "{"])
def test_a_torn_file_promises_nothing(proc: Path, torn: str) -> None:
    with exclusive("promised") as file:
        file.write_text(torn)

    with room_for(3, LOCAL, proc):
        assert list(promised()) == [str(os.getpid())]
    assert promised() == {}


WRONG = {
    "no document": "[1]",
    "a number": "7",
    "no promise": '{"77": 5}',
    "a list": '{"77": [5]}',
    "text": '{"77": {"memory_mib": "all of it"}}',
    "a negative number": '{"77": {"memory_mib": -5}}',
    "true": '{"77": {"memory_mib": true}}',
    "a fraction": '{"77": {"memory_mib": 1e9}}',
    "no process": '{"../77": {"memory_mib": 9999}}',
    "nested deeply": "[" * 100_000,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=list(WRONG))
def test_what_is_no_promise_in_the_file_that_all_may_write_hinders_nobody(proc: Path, wrong: str) -> None:
    (proc / "77").mkdir()
    with exclusive("promised") as file:
        file.write_text(wrong)

    with room_for(3, LOCAL, proc):
        assert list(promised()) == [str(os.getpid())]


def test_what_a_cluster_takes_is_not_counted_as_promised_too(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (proc / "77").mkdir()
    with room_for(3, LOCAL, proc) as room:
        room.ends_in(60)
        monkeypatch.setattr(os, "getpid", lambda: 77)
        with pytest.raises(EnvironmentFailed):
            room_for(3, LOCAL, proc).__enter__()
        later = time.time() + 61
        monkeypatch.setattr("harness.setup.limits.time.time", lambda: later)
        with room_for(3, LOCAL, proc):
            assert list(promised()) == ["77"]
        monkeypatch.undo()


def test_a_file_that_is_torn_meanwhile_is_no_failure(proc: Path) -> None:
    with room_for(3, LOCAL, proc), exclusive("promised") as file:
        file.write_text('{"7')

    assert promised() == {}


def test_a_promise_that_cannot_be_withdrawn_does_not_lose_the_run(proc: Path, temporary: Path) -> None:
    with room_for(3, LOCAL, proc):
        shutil.rmtree(temporary)


def test_a_target_that_takes_nothing_needs_room_for_the_harness_only(proc: Path) -> None:
    memory(proc, HARNESS_MIB)
    inotify(proc, 0)
    (proc / "77").mkdir()
    with exclusive("promised") as file:
        file.write_text('{"77": {"inotify_instances": 100, "neighbours": 100}}')

    with room_for(100, {}, proc):
        assert promised()[str(os.getpid())] == {"memory_mib": HARNESS_MIB}


def test_this_machine_says_what_is_free() -> None:
    assert limits._available_mib(Path("/proc")) > 0
    assert limits._inotify_instances(Path("/proc")) >= 0


# -- what a group of processes may take is the machine's size -----------------------------------------------------


V1 = {"memory/a/memory.limit_in_bytes": 2**30, "memory/a/memory.usage_in_bytes": 2**29}
V1 |= {"cpu/a/cpu.cfs_quota_us": 100000, "cpu/a/cpu.cfs_period_us": 100000}


@pytest.mark.parametrize(
    ("groups", "files", "mib", "count"),
    [
        ("0::/a/b\n", {"a/memory.max": 2**30, "a/memory.current": 2**29, "a/cpu.max": "100000 100000"}, 512, 1),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/b/memory.current": 1, "a/b/cpu.max": "max 100000"}, 4096, 4),
        # in a container that has no namespace of its own for groups
        ("0::/docker/x\n", {"memory.max": 2**30, "memory.current": 0, "cpu.max": "250000 100000"}, 1024, 2),
        ("0::/\n", {"cpu.max": "50000 100000"}, 4096, 1),
        ("5:memory:/a\n4:cpu,cpuacct:/a\n0::/\n", V1, 512, 1),
        ("5:memory:/a\n", V1 | {"memory/a/memory.stat": f"inactive_file 1\ntotal_inactive_file {2**28}"}, 768, 4),
        (
            "5:memory:/a\n",
            {"memory/a/memory.limit_in_bytes": 2**63 - 4096, "memory/a/memory.usage_in_bytes": 5},
            4096,
            4,
        ),
        ("0::/../../x\n", {}, 4096, 4),
        ("", {}, 4096, 4),
    ],
    ids=["limited", "unlimited", "container", "half", "v1", "v1 with files in memory", "v1 unlimited", "above", "none"],
)
def test_the_limits_of_a_group_are_the_machines_size(
    proc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    groups: str,
    files: dict[str, object],
    mib: int,
    count: int,
) -> None:
    memory(proc, 4096)
    (proc / "self").mkdir()
    (proc / "self/cgroup").write_text(groups)
    for name, value in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(f"{value}\n")
    monkeypatch.setattr(limits, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(4)))

    assert (limits._available_mib(proc), limits.processors(proc)) == (mib, count)


def test_processors_that_this_process_may_not_use_do_not_count(monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3})

    assert limits.processors(proc) == 1


# -- one at a time -------------------------------------------------------------------------------------------------


def test_only_one_at_a_time_is_inside_for_the_same_name() -> None:
    inside, told = threading.Event(), threading.Event()

    def enter() -> None:
        told.set()
        with exclusive("x"):
            inside.set()

    thread = threading.Thread(target=enter)
    with exclusive("x"), exclusive("y"):
        thread.start()
        assert told.wait(5)
        assert not inside.wait(0.1)
    assert inside.wait(5)
    thread.join()


def test_who_fails_inside_lets_the_next_one_in() -> None:
    with pytest.raises(ValueError, match="what"), exclusive("x"):
        raise ValueError("what")
    with exclusive("x") as path:
        assert path == Path(tempfile.gettempdir()) / "platform-x"


def test_every_user_may_open_the_file(temporary: Path) -> None:
    before = os.umask(0o077)
    try:
        with exclusive("x") as path:
            pass
    finally:
        os.umask(before)

    assert path.stat().st_mode & 0o777 == 0o666


def _opened_by_somebody_else(name: str) -> str:
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        with exclusive(name):
            return "opened"
    except EnvironmentFailed as refused:
        return str(refused)


def by_somebody_else(name: str) -> str:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return str(pool.apply(_opened_by_somebody_else, (name,)))


def test_the_file_of_another_user_is_shared(temporary: Path) -> None:
    with exclusive("x"):
        pass

    assert by_somebody_else("x") == "opened"


def test_a_file_of_another_user_that_cannot_be_opened_is_said_with_what_to_do(temporary: Path) -> None:
    file = temporary / "platform-x"
    file.touch()
    file.chmod(0)

    assert by_somebody_else("x") == f"{file} cannot be opened (Permission denied): remove it"


def test_what_is_no_file_is_the_environments_failure(temporary: Path, proc: Path) -> None:
    (temporary / "platform-promised").mkdir()

    with pytest.raises(EnvironmentFailed, match=r"platform-promised cannot be opened \(Is a directory\): remove it"):
        room_for(1, LOCAL, proc).__enter__()
