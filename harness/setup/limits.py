"""What a cluster takes of this machine, checked before it is made.

A target says in its target.json what one of its machines takes of the machine that the harness runs on (`takes`); a
cloud's take nothing. Runs that start at once each see the same free memory, so what is promised to a cluster that is
not up yet is written down where every run of this machine looks: a file in the folder for temporary files.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import EnvironmentFailed
from harness.seams.patience import MOST, patience

# Terraform, its provider, pytest and the ground
HARNESS_MIB = 512
MEMORY = "memory_mib"
# how many of the first machines run what readers come to, and what each of them takes besides
ENTRY_POINTS, ENTRY_POINT_MEMORY = "entry_points", "entry_point_memory_mib"
# Of one processor, in percent: what a machine takes while its cluster starts, for all to be in time
PROCESSOR = "processor_percent"
# The file of promises, and in a promise the moment when it ends, in seconds since the epoch
PROMISED = "promised"
UNTIL = "until"

# Where the kernel shows the limits of groups of processes: of a container, of a service, of a job
CGROUPS = Path("/sys/fs/cgroup")

Promise = dict[str, int]


@contextmanager
def exclusive(name: str) -> Iterator[Path]:
    """Only one process of this machine at a time is inside, for the same name; gives the locked file. Raises
    EnvironmentFailed."""
    path = Path(tempfile.gettempdir()) / f"platform-{name}"
    with contextlib.ExitStack() as stack:
        try:
            if not path.exists():
                # with O_CREAT the kernel would refuse another user's file in a sticky folder, even to root
                with contextlib.suppress(FileExistsError):
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
                    path.chmod(0o666)
            lock = stack.enter_context(path.open("r+"))
        except OSError as refused:
            raise EnvironmentFailed(f"{path} cannot be opened ({refused.strerror}): remove it") from refused
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


@dataclass(frozen=True)
class KernelLimit:
    """A table of the kernel that all machine-containers of this machine share."""

    what: str
    sysctl: str
    used: Callable[[Path], int]


class Room:
    """What this process's cluster was promised of this machine."""

    def __init__(self, promise: Promise, proc: Path) -> None:
        self._promise, self._proc = promise, proc

    def ends_in(self, seconds: float) -> None:
        """From now on the cluster comes up, and takes what it was promised within so many seconds: after that it is
        counted as taken, and no longer as promised too."""
        self._replace(self._promise | {UNTIL: int(time.time() + seconds)})

    def give_back(self) -> None:
        """What cannot be withdrawn ends with this process."""
        self._replace(None)

    def _replace(self, promise: Promise | None) -> None:
        with contextlib.suppress(EnvironmentFailed, OSError), exclusive(PROMISED) as file:
            promises = _promises(file, self._proc)
            promises.pop(str(os.getpid()), None)
            promises |= {} if promise is None else {str(os.getpid()): promise}
            file.write_text(json.dumps(promises))


@contextmanager
def room_for(machines: int, takes: Mapping[str, int], proc: Path = Path("/proc")) -> Iterator[Room]:
    """Holds room for a cluster of this size until it is up (`Room.ends_in`).

    Raises EnvironmentFailed, which says what to change, when this machine has no room for it.
    """
    _require_processors(machines, takes.get(PROCESSOR, 0))
    wanted = {name: takes[name] * machines for name in LIMITS if name in takes}
    wanted[MEMORY] = memory_of(machines, takes)
    with exclusive(PROMISED) as file:
        promises = _promises(file, proc)
        promised = {name: sum(promise.get(name, 0) for promise in promises.values()) for name in (MEMORY, *LIMITS)}
        _require_memory(machines, takes, _available_mib(proc) - promised[MEMORY])
        for name, limit in LIMITS.items():
            _require(machines, wanted.get(name, 0), promised[name], limit, proc)
        promises[str(os.getpid())] = wanted
        file.write_text(json.dumps(promises))
    room = Room(wanted, proc)
    try:
        yield room
    finally:
        room.give_back()


def memory_of(machines: int, takes: Mapping[str, int]) -> int:
    """MiB that a run takes with so many machines."""
    entry_points = min(machines, takes.get(ENTRY_POINTS, 0))
    return HARNESS_MIB + machines * takes.get(MEMORY, 0) + entry_points * takes.get(ENTRY_POINT_MEMORY, 0)


def processors(proc: Path = Path("/proc")) -> int:
    """Those of this machine that this process may use, by its affinity and by its groups' quotas."""
    quotas = []
    for group in _groups(proc, "cpu"):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            words = " ".join(_text(group / name) for name in names).split()
            if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal():
                quotas.append(int(words[0]) // int(words[1]))
    return max(1, min([len(os.sched_getaffinity(0)), *quotas]))


def _require_processors(machines: int, each: int) -> None:
    """What waits longer needs less at a time. Raises EnvironmentFailed, which names the PATIENCE to give."""
    here = processors()
    needed = math.ceil(machines * each / (100 * here))
    if needed <= patience():
        return
    fits = math.floor(patience()) * 100 * here // each
    longer = f"be patient (PATIENCE={needed}), or " if needed <= MOST else ""
    raise EnvironmentFailed(
        f"{machines} machines are too many for {here} processor{'' if here == 1 else 's'} within the runbook's time "
        f"limits: {longer}ask for {fits} machines at most (MACHINES={fits})"
    )


def _require_memory(machines: int, takes: Mapping[str, int], free: int) -> None:
    needed = memory_of(machines, takes)
    if needed > free:
        fits = max((fewer for fewer in range(1, machines) if memory_of(fewer, takes) <= free), default=0)
        fewer = f", or ask for {fits} machines at most (MACHINES={fits})" if fits else ""
        raise EnvironmentFailed(
            f"{machines} machines take {needed} MiB of memory, and {max(free, 0)} MiB are free: "
            f"remove a kept cluster (bin/platform down){fewer}"
        )


def _require(machines: int, needed: int, promised: int, limit: KernelLimit, proc: Path) -> None:
    file = proc / "sys" / limit.sysctl.replace(".", "/")
    if not needed or not file.exists():  # a network namespace of its own does not show the neighbour table's
        return
    most = int(file.read_text())
    used = limit.used(proc) + promised
    if used + needed > most:
        raise EnvironmentFailed(
            f"{machines} machines take {needed} {limit.what}, and {max(most - used, 0)} of {most} are free: "
            f"raise the limit (as root: sysctl {limit.sysctl}={_rounded(used + needed)})"
        )


def _promises(file: Path, proc: Path) -> dict[str, Promise]:
    """Process -> what it was promised, of the processes that still run and whose promise has not ended. Everybody may
    write the file: what is none of ours in it is passed over."""
    try:
        written = json.loads(file.read_text() or "{}")
    except (ValueError, RecursionError):  # a full disk cut it
        return {}
    now = time.time()
    return {
        pid: promise
        for pid, promise in (written.items() if isinstance(written, dict) else ())
        if _is_promise(promise) and promise.get(UNTIL, now) >= now and pid.isdecimal() and (proc / pid).exists()
    }


def _is_promise(value: object) -> bool:
    return isinstance(value, dict) and all(type(number) is int and number >= 0 for number in value.values())


def _available_mib(proc: Path) -> int:
    """Of the machine, and of each group of processes that this one is in and that has a limit."""
    line = next(line for line in (proc / "meminfo").read_text().splitlines() if line.startswith("MemAvailable:"))
    free = [int(line.split()[1]) // 1024]
    for group in _groups(proc, "memory"):
        for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            limit, now = _text(group / most), _text(group / used)
            if limit.isdecimal() and now.isdecimal():
                # what files left in memory is given back when somebody needs it
                kept = re.findall(r"(?m)^(?:total_)?inactive_file (\d+)", _text(group / "memory.stat"))
                free.append((int(limit) - int(now) + max(map(int, kept), default=0)) // 2**20)
    return min(free)


def _groups(proc: Path, controller: str) -> Iterator[Path]:
    """The folders of the groups of processes that limit this process, of both versions of cgroups."""
    for line in _text(proc / "self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            top = CGROUPS / controller if controllers else CGROUPS
            inside = Path(name.lstrip("/"))
            yield from (top / folder for folder in (inside, *inside.parents) if ".." not in folder.parts)


def _text(file: Path) -> str:
    """What stands in a file of the kernel's; nothing where it has none."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _inotify_instances(proc: Path) -> int:
    """Those of root, whose limit the machines count against: PID 1 and its services run as root."""
    found = 0
    for entry in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or belongs to another user
            if entry.stat().st_uid == 0:
                found += sum(
                    str(descriptor.readlink()) == "anon_inode:inotify" for descriptor in (entry / "fd").iterdir()
                )
    return found


def _neighbours(proc: Path) -> int:
    """Entries of the ARP table, of all network namespaces together: the first word, in hexadecimal."""
    return int((proc / "net/stat/arp_cache").read_text().splitlines()[1].split()[0], 16)


def _rounded(needed: int) -> int:
    """The next power of two: a limit that need not be raised again soon."""
    return 1 << (needed - 1).bit_length()


# What a target's machines may take, beside memory, by its name in target.json
LIMITS = {
    "inotify_instances": KernelLimit("inotify instances", "fs.inotify.max_user_instances", _inotify_instances),
    "neighbours": KernelLimit("entries of the ARP table", "net.ipv4.neigh.default.gc_thresh3", _neighbours),
}
