"""What the tests of runs share: a machine's surroundings that are the test's own, and a checkout in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places import checkout, surroundings


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files; see `surroundings`."""
    with surroundings(tmp_path, monkeypatch) as folder:
        yield folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return checkout(tmp_path / "root")
