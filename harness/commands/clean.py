"""`platform clean`: everything goes that runs left and that was built for them, and nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from harness.commands.prepared import prepared
from harness.errors import Misconfigured
from harness.runs.run import runs_folder
from harness.runs.standing import standing, standing_on, under_way
from harness.setup.cache import Cache, places
from harness.setup.toolchain import CACHE_LABEL


def clean(root: Path) -> str:
    """Removes run folders, images and cache; what was removed, in one line. Raises Misconfigured while a cluster stands
    that needs them, of whichever checkout, and while a run is under way."""
    folder, *old = places()
    runs = sorted(runs_folder(root).glob("*"))
    noted = [run for run in standing_on(folder) if Path(run).parent != runs_folder(root)]
    busy = [run.name for run in runs if under_way(run)] + [run for run in noted if under_way(Path(run))]
    if busy:
        raise Misconfigured(
            f"runs are under way that need what is to be removed, wait for their end: {', '.join(busy)}"
        )
    stand = standing(root) + noted
    if stand:
        raise Misconfigured(f"clusters stand that would be lost, remove them first (make down): {', '.join(stand)}")
    for run in runs:  # and not the folder at once: a run may begin now
        shutil.rmtree(run) if run.is_dir() and not run.is_symlink() else run.unlink()
    with contextlib.suppress(OSError):
        runs_folder(root).rmdir()
    # an engine that does not answer is not started for that
    images = "and its images" if _forget_images(root) else "(its images stay: no Docker Engine answers)"
    left = Cache(folder).clear()
    for place in old:
        if os.access(place, os.W_OK):
            Cache(place).clear()
    kept = f"; still there, because not ours or in use: {', '.join(left)}" if left else ""
    return f"removed .runs, the cache {folder} {images}{kept}"


def _forget_images(root: Path) -> bool:
    """Removes the images that were built for this cache; False where no engine answers, which may hold some."""
    with prepared(root, ()) as toolchain:
        return all(toolchain.images.remove(f"{CACHE_LABEL}={place}") for place in places())
