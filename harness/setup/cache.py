"""What is built once and shared between runs: entries keyed by their inputs, in one folder outside the run folders."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from harness.errors import EnvironmentFailed
from harness.files import put

# What the names of entries begin with. `clean` removes by name: others may have put things into the folder.
ENTRIES = (
    "bundle",
    "fleet",
    "host-packages",
    "programs-of-tests",
    "provider",
    "python-dev",
    "python-runtime",
    "registry",
    "services",
    "system",
    "terraform-config",
    "terraform-shim",
    "wheel-go",
    "wheel-terraform",
)
# Go's modules and objects while something is built, and what else lies in the folder
BUILD_FILES = "go-build-files"
BYTECODE = "bytecode"
CLUSTERS = "clusters"
# https://bford.info/cachedir/: backups pass such a folder over
TAG = "CACHEDIR.TAG"
TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# made by platform; `make clean` removes it\n"
_ENTRY = re.compile(rf"({'|'.join(ENTRIES)})-[0-9a-f]{{12}}(\.partial)?")
_CONTEXT = re.compile(r"context-([0-9a-f]{12})")
_LOCK = re.compile(rf"({'|'.join((*ENTRIES, BUILD_FILES, 'go'))}|platform-[a-z]+-[0-9a-f]{{12}})\.lock")
_NOTE = "platform-run-"
# pip's wheels, Go's modules while building, the images' roots on their way into the Engine
FIRST_RUN_BYTES = 8 * 2**30


def cache_folder() -> Path:
    """`platform`, a folder of our own, in $PLATFORM_CACHE, else in the user's cache folder (XDG Base Directory)."""
    given = os.environ.get("PLATFORM_CACHE") or os.environ.get("XDG_CACHE_HOME")
    return (Path(given or Path.home() / ".cache") / "platform").absolute()


def places() -> list[Path]:
    """The cache folder, and $PLATFORM_CACHE itself, which an older version kept its entries in."""
    folder = cache_folder()
    return [folder, folder.parent] if os.environ.get("PLATFORM_CACHE") else [folder]


def note_cluster(cache: Path, run: Path) -> None:
    """Notes in a cache that the cluster of a run folder stands on what is in it: a link, in a folder where others may
    have theirs. Raises OSError."""
    (cache / CLUSTERS).mkdir(exist_ok=True)
    (cache / CLUSTERS / f"{_NOTE}{run.name}").symlink_to(run.resolve())


def notes_of_clusters(cache: Path) -> list[Path]:
    """The links that `note_cluster`, of this version or an older one, made."""
    links = ((link, link.readlink()) for link in sorted((cache / CLUSTERS).glob("*")) if link.is_symlink())
    return [link for link, run in links if link.name == f"{_NOTE}{run.name}" or run.parts[-2:] == (".runs", link.name)]


def made_folder(folder: Path) -> Path:
    """Makes the cache folder where it is missing, and marks it as one that was made here. Raises OSError."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        folder.mkdir(exist_ok=True)  # raises where it is a file
    else:
        put(folder / TAG, TAG_TEXT)
    return folder


def key_of(*inputs: Path | str) -> str:
    """12 hex digits that change when a file (of a folder: any of its files, their names and modes) or text changes."""
    digest = hashlib.sha256()
    for given in inputs:
        if isinstance(given, str):
            digest.update(given.encode() + b"\0")
            continue
        files = sorted(path for path in given.rglob("*") if not path.is_dir()) if given.is_dir() else [given]
        for file in files:
            # what a umask leaves of its mode for others does not count
            executable = 0o111 if file.lstat().st_mode & 0o100 else 0
            digest.update(f"{file.relative_to(given)}\0{executable:o}\0".encode())
            digest.update(str(file.readlink()).encode() if file.is_symlink() else file.read_bytes())
            digest.update(b"\0")
    return digest.hexdigest()[:12]


def copied(source: Path, target: Path) -> None:
    """Copies a file or folder of the checkout for others to read it too, whatever umask it was cloned under."""
    (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


class Cache:
    """A folder of finished entries. An entry appears by one rename, so a half-written one is never taken for done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            made_folder(folder)
        except OSError as refused:
            raise EnvironmentFailed(f"the cache folder {folder} cannot be made: {refused.strerror}") from refused
        if not os.access(folder, os.W_OK):
            raise EnvironmentFailed(f"the cache folder {folder} cannot be written: set PLATFORM_CACHE to one that can")

    @contextmanager
    def locked(self, name: str, how: int = fcntl.LOCK_EX) -> Iterator[None]:
        """Only one process at a time is inside, for the same name (several that lock it LOCK_SH); the kernel frees the
        lock of a killed one. Raises BlockingIOError for a lock that is not free and that is LOCK_NB."""
        path = self.folder / f"{name}.lock"
        while True:
            with path.open("a") as lock:
                fcntl.flock(lock, how)
                if _is_still(path, lock):  # `clear` removes it meanwhile
                    yield
                    return

    def entry(self, name: str, key: str, build: Callable[[Path], None]) -> Path:
        """The folder of an entry; `build` fills it, when it is not there yet, under a name that does not count."""
        if name not in ENTRIES:
            raise ValueError(f"{name} is not among ENTRIES: it would never be cleaned")
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

    def clear(self) -> list[str]:
        """Removes what was made here, but for what another process holds the lock of; the folder too, where it was made
        here and nothing else is in it. The names of what stays: it is not ours, or in use."""
        ours_alone = _is_tagged(self.folder)
        locks = {found[1] for path in self.folder.glob("*.lock") if (found := _LOCK.fullmatch(path.name))}
        if not ours_alone:
            locks = {lock for lock in locks if lock.startswith("platform-")}
        for path in list(self.folder.iterdir()):
            if (lock := _lock_of(path)) and path.is_dir() and not path.is_symlink() and self._remove(path, lock):
                locks.add(lock)
        for lock in locks:
            self._remove(self.folder / f"{lock}.lock", lock)
        noted = notes_of_clusters(self.folder)
        for note in noted:
            note.unlink(missing_ok=True)
        if noted or ours_alone:
            with contextlib.suppress(OSError):  # others have something in it
                (self.folder / CLUSTERS).rmdir()
        if ours_alone and all(path.is_dir() or ".pyc" in path.name for path in (self.folder / BYTECODE).rglob("*")):
            shutil.rmtree(self.folder / BYTECODE, ignore_errors=True)
        left = sorted(path.name for path in self.folder.iterdir() if not (ours_alone and path.name == TAG))
        if ours_alone and not left:
            shutil.rmtree(self.folder)
        return left

    def _remove(self, path: Path, lock: str) -> bool:
        """Removes a folder, or a lock, which is an empty file; False where another process holds the lock."""
        try:
            with self.locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.stat().st_size == 0:
                    path.unlink()
        except BlockingIOError:
            return False
        return True

    def require_space(self, needed: int) -> None:
        """Raises EnvironmentFailed when fewer than `needed` bytes are free."""
        require_space(self.folder, needed, ", or set PLATFORM_CACHE to a folder on a larger disk")


def _is_still(path: Path, lock: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False


def _is_tagged(folder: Path) -> bool:
    """Whether the folder was made here, and not only used."""
    try:
        return (folder / TAG).read_bytes() == TAG_TEXT.encode()
    except OSError:
        return False


def _lock_of(path: Path) -> str:
    """The lock that an entry, or what an image is built from, is made under; "" for what is no such thing."""
    if path.name == BUILD_FILES:
        return BUILD_FILES
    if context := _CONTEXT.fullmatch(path.name):
        return f"platform-machine-{context[1]}"
    entry = _ENTRY.fullmatch(path.name)
    return entry[1] if entry else ""


def require_space(folder: Path, needed: int, remedy: str = "") -> None:
    """Raises EnvironmentFailed when fewer than `needed` bytes are free where `folder` is."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        unit, size = ("GiB", 2**30) if needed >= 2**30 else ("MiB", 2**20)
        has = f"{folder} has {free / size:.1f} {unit} free, {needed / size:.0f} {unit} are needed"
        raise EnvironmentFailed(f"{has}: free some space{remedy}")
