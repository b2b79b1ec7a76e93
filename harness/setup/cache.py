"""What is built once and shared between runs: entries keyed by their inputs, in one folder outside the run folders."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import EnvironmentFailed

# What the names of entries begin with. `clean` removes by name: the folder may be one that holds other things too.
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
_ENTRY = re.compile(rf"({'|'.join(ENTRIES)})-[0-9a-f]{{12}}(\.partial)?|context-[0-9a-f]{{12}}")
_LOCK = re.compile(rf"({'|'.join((*ENTRIES, BUILD_FILES, 'go'))}|platform-[a-z]+-[0-9a-f]{{12}})\.lock")
# pip's wheels, Go's modules while building, the images' roots on their way into the Engine
FIRST_RUN_BYTES = 8 * 2**30


def cache_folder() -> Path:
    """$PLATFORM_CACHE, else `platform` in the user's cache folder (XDG Base Directory)."""
    own = os.environ.get("PLATFORM_CACHE")
    folder = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "platform"
    return folder.absolute()


def made_folder(folder: Path) -> Path:
    """Makes the cache folder where it is missing, and marks it as one that was made here. Raises OSError."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        folder.mkdir(exist_ok=True)  # raises where it is a file
    else:
        (folder / TAG).write_text(TAG_TEXT)
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
            digest.update(f"{file.relative_to(given)}\0{file.lstat().st_mode & 0o111:o}\0".encode())
            digest.update(str(file.readlink()).encode() if file.is_symlink() else file.read_bytes())
            digest.update(b"\0")
    return digest.hexdigest()[:12]


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
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, how)
            yield

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
        """Removes every entry, and the folder when nothing else is in it; the names of what is not ours and stays."""
        names = {path.name for path in self.folder.iterdir()}
        ours = {name for name in names if _is_ours(name)}
        # `go` is what building needed, before it had a name that nobody else uses
        if (self.folder / TAG).exists() or names == ours | {"go"}:
            ours |= names & {"go"}
        for name in ours:
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if names == ours:
            self.folder.rmdir()
        return sorted(names - ours)

    def require_space(self, needed: int) -> None:
        """Raises EnvironmentFailed when fewer than `needed` bytes are free."""
        require_space(self.folder, needed, ", or set PLATFORM_CACHE to a folder on a larger disk")


def _is_ours(name: str) -> bool:
    return bool(_ENTRY.fullmatch(name) or _LOCK.fullmatch(name)) or name in (BUILD_FILES, BYTECODE, CLUSTERS, TAG)


def require_space(folder: Path, needed: int, remedy: str = "") -> None:
    """Raises EnvironmentFailed when fewer than `needed` bytes are free where `folder` is."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        unit, size = ("GiB", 2**30) if needed >= 2**30 else ("MiB", 2**20)
        has = f"{folder} has {free / size:.1f} {unit} free, {needed / size:.0f} {unit} are needed"
        raise EnvironmentFailed(f"{has}: free some space{remedy}")
