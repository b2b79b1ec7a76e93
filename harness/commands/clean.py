"""`platform clean`: everything goes that runs left and that was built for them, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.commands.prepared import prepared
from harness.errors import Misconfigured
from harness.runs.run import runs_folder
from harness.runs.standing import standing, standing_on
from harness.setup.cache import Cache, cache_folder
from harness.setup.toolchain import CACHE_LABEL


def clean(root: Path) -> str:
    """Removes run folders, images and cache; what was removed, in one line. Raises Misconfigured while a cluster stands
    that needs them, of whichever checkout."""
    folder = cache_folder()
    stand = standing(root) + [run for run in standing_on(folder) if Path(run).parent != runs_folder(root)]
    if stand:
        raise Misconfigured(f"clusters stand that would be lost, remove them first (make down): {', '.join(stand)}")
    shutil.rmtree(root / ".runs", ignore_errors=True)
    # an engine that does not answer is not started for that
    images = "and its images" if _forget_images(root) else "(its images stay: no Docker Engine answers)"
    left = Cache(folder).clear()
    kept = f"; not ours, and still there: {', '.join(left)}" if left else ""
    return f"removed .runs, the cache {folder} {images}{kept}"


def _forget_images(root: Path) -> bool:
    """Removes the images that were built for this cache; False where no engine answers, which may hold some."""
    with prepared(root, ()) as toolchain:
        return toolchain.images.remove(f"{CACHE_LABEL}={toolchain.cache.folder}")
