"""Files: read with a remedy where that fails, and replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from harness.errors import EnvironmentFailed, Misconfigured

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def read(path: Path, *, if_missing: str) -> str:
    """The file's text, line ends and byte order mark as they are. Raises Misconfigured with what to do."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError as error:
        raise Misconfigured(f"{path} is missing: {if_missing}") from error
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{path} is not UTF-8 (byte {error.start + 1}): save it as UTF-8") from error


def refuse_write_protected(path: Path) -> None:
    """A file that may not be written is not to be replaced either, although its folder would allow it."""
    if not os.access(path, os.W_OK):
        raise Misconfigured(f"{path} is write-protected: allow writing to it (chmod u+w)")


def replace(path: Path, text: str) -> None:
    """Puts the text in the file's place at once, keeping owner and mode; a symlink stays, its target is replaced.

    Raises Misconfigured, or EnvironmentFailed when the disk is full; the file is then as before.
    """
    target = path.resolve()
    try:
        put(target, text)
    except OSError as error:
        kind = EnvironmentFailed if error.errno in _FULL else Misconfigured
        remedy = "make room on its disk" if kind is EnvironmentFailed else f"allow writing in {target.parent}"
        raise kind(f"{path} cannot be written ({error.strerror}) and is as before: {remedy}") from error


def write(path: Path, text: str) -> None:
    """Puts the text in a file at once, with its folder where there is none. Raises as `replace` does."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, text)
    except OSError as error:
        kind = EnvironmentFailed if error.errno in _FULL else Misconfigured
        remedy = "make room on its disk" if kind is EnvironmentFailed else "choose a folder that can be written to"
        raise kind(f"{path} cannot be written ({error.strerror}): {remedy}") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file that a command of ours wrote. Raises EnvironmentFailed where that is none."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError:  # older versions could be killed while they wrote
        value = None
    if not isinstance(value, dict):
        raise EnvironmentFailed(
            f"{path} is cut off (the disk was full, or its writer killed): remove its cluster (make down)"
        )
    return value


def put(target: Path, text: str, *, mode: int = 0o644, sync: bool = True) -> None:
    """Puts the text in the file's place at once: whoever reads it, or is killed meanwhile, has the old one or the new.

    A file that is there keeps owner and mode. Without `sync` only a power failure can cut it. Raises OSError.
    """
    before = target.stat() if target.exists() else None
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            if before is not None:
                with contextlib.suppress(PermissionError):  # not root: the new file is the writer's own
                    os.fchown(handle, before.st_uid, before.st_gid)
            # mkstemp's mode is for the writer alone
            os.fchmod(handle, mode if before is None else stat.S_IMODE(before.st_mode))
            file.write(text.encode(errors="surrogateescape"))
            file.flush()
            if sync:
                os.fsync(handle)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
