"""What is built once and shared between runs: entries keyed by their inputs, in one folder outside the run folders."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import EnvironmentFailed

# pip's wheels, Go's modules while building, the images' roots on their way into the Engine
FIRST_RUN_BYTES = 8 * 2**30


def cache_folder() -> Path:
    """$PLATFORM_CACHE, else `platform` in the user's cache folder (XDG Base Directory)."""
    own = os.environ.get("PLATFORM_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "platform"


def key_of(*inputs: Path | str) -> str:
    """12 hex digits that change when a file (of a folder: any of its files, their names and modes) or text changes."""
    digest = hashlib.sha256()
    for given in inputs:
        if isinstance(given, str):
            digest.update(given.encode() + b"\0")
            continue
        files = sorted(path for path in given.rglob("*") if not path.is_dir()) if given.is_dir() else [given]
        for file in files:
            digest.update(f"{file.relative_to(given)}\0{file.lstat().st_mode & 0o111:o}\0".encode())
            digest.update(str(file.readlink()).encode() if file.is_symlink() else file.read_bytes())
            digest.update(b"\0")
    return digest.hexdigest()[:12]


class Cache:
    """A folder of finished entries. An entry appears by one rename, so a half-written one is never taken for done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as refused:
            raise EnvironmentFailed(f"the cache folder {folder} cannot be made: {refused.strerror}") from refused
        if not os.access(folder, os.W_OK):
            raise EnvironmentFailed(f"the cache folder {folder} cannot be written: set PLATFORM_CACHE to one that can")

    @contextmanager
    def locked(self, name: str, how: int = fcntl.LOCK_EX) -> Iterator[None]:
        """Only one process at a time is inside, for the same name (several that lock it LOCK_SH); the kernel frees the
        lock of a killed one. Raises BlockingIOError for a lock that is not free and that is LOCK_NB."""
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, how)
            yield

    def entry(self, name: str, key: str, build: Callable[[Path], None]) -> Path:
        """The folder of an entry; `build` fills it, when it is not there yet, under a name that does not count."""
        finished = self.folder / f"{name}-{key}"
        if finished.is_dir():
            return finished
        with self.locked(name):
            if not finished.is_dir():
                partial = self.folder / f"{name}-{key}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                build(partial)
                partial.rename(finished)
        return finished

    def require_space(self, needed: int) -> None:
        """Raises EnvironmentFailed when fewer than `needed` bytes are free."""
        require_space(self.folder, needed, ", or set PLATFORM_CACHE to a folder on a larger disk")


def require_space(folder: Path, needed: int, remedy: str = "") -> None:
    """Raises EnvironmentFailed when fewer than `needed` bytes are free where `folder` is."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        unit, size = ("GiB", 2**30) if needed >= 2**30 else ("MiB", 2**20)
        has = f"{folder} has {free / size:.1f} {unit} free, {needed / size:.0f} {unit} are needed"
        raise EnvironmentFailed(f"{has}: free some space{remedy}")
