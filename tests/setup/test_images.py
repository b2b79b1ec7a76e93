"""Images: made once and tagged when they are whole, removed when no run uses them, pushed into a registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import CommandFailed
from harness.seams.wait import Waiter
from harness.setup.cache import Cache
from harness.setup.engine import Engine
from harness.setup.images import Images
from harness.setup.packages import Packages
from tests.engines import changes
from tests.fakes import FakeRunner

Programs = Callable[..., Path]


@pytest.fixture
def images(runner: FakeRunner, waiter: Waiter, packages: Packages, engine: Engine) -> Images:
    return Images(runner, waiter, packages, engine)


def never() -> str:
    raise AssertionError("the engine has it already")


def test_an_image_whose_build_fails_gets_no_tag(images: Images, runner: FakeRunner, tmp_path: Path) -> None:
    runner.on("docker image inspect", status=1)

    def build() -> str:
        raise CommandFailed(["mmdebstrap"], 1, "", "no mirror")

    with pytest.raises(CommandFailed):
        images.make("platform-base:abc", Cache(tmp_path), build)
    assert [call for call in runner.calls if call.startswith("docker tag")] == []


def test_an_engine_that_is_gone_is_not_taken_for_one_without_the_image(
    images: Images, runner: FakeRunner, tmp_path: Path
) -> None:
    runner.on("docker image inspect", status=125, stderr="cannot connect")

    with pytest.raises(CommandFailed):
        images.make("platform-base:abc", Cache(tmp_path), never)


def test_an_image_that_another_process_made_meanwhile_is_taken(
    images: Images, runner: FakeRunner, tmp_path: Path
) -> None:
    runner.on("docker image inspect", status=1, does=lambda: runner.on("docker image inspect"))

    assert images.make("platform-base:abc", Cache(tmp_path), never) == "cached"


def test_an_image_is_tagged_when_it_is_whole(images: Images, runner: FakeRunner, tmp_path: Path) -> None:
    runner.on("docker image inspect", status=1).on("docker tag sha256:1 platform-base:abc")

    assert images.make("platform-base:abc", Cache(tmp_path), lambda: "sha256:1") == "done"
    runner.on("docker image inspect")
    assert images.make("platform-base:abc", Cache(tmp_path), never) == "cached"


LISTED = "docker image ls --format '{{.Repository}}:{{.Tag}}' --filter label=platform.cache=/cache"


def test_without_an_engine_no_images_are_removed(images: Images, silent: FakeRunner) -> None:
    assert images.remove("platform.cache=/cache") is False

    assert changes(silent) == []


def test_without_a_client_no_images_are_removed(images: Images, runner: FakeRunner, programs: Programs) -> None:
    images.remove("platform.cache=/cache")

    assert runner.calls == []


def test_images_are_removed_by_name_but_not_those_in_use(images: Images, runner: FakeRunner, debian: None) -> None:
    """Not by id: that of an image that others are built from cannot be removed before them."""
    found = ["platform-machine:aaa", "platform-machine:bbb", "platform-web:aaa", "platform-base:aaa"]
    runner.on("docker version", "28.1.0").on(LISTED, "\n".join(found) + "\n")
    runner.on("docker rmi --force platform-").on("docker ps --quiet --filter ancestor=", "")
    for used in ("platform-machine:bbb", "platform-base:aaa"):
        runner.on(f"docker ps --quiet --filter ancestor={used}", "6f3c\n91ab\n")

    assert images.remove("platform.cache=/cache") is True

    removed = [call for call in runner.calls if call.startswith("docker rmi")]
    assert removed == ["docker rmi --force platform-machine:aaa", "docker rmi --force platform-web:aaa"]


def test_where_there_are_no_images_none_are_removed(images: Images, runner: FakeRunner, debian: None) -> None:
    runner.on("docker version", "28.1.0").on(LISTED, "\n")

    images.remove("platform.cache=/cache")

    assert len(runner.calls) == 2


def test_an_image_that_cannot_be_removed_is_said(images: Images, runner: FakeRunner, debian: None) -> None:
    runner.on("docker version", "28.1.0").on(LISTED, "platform-web:aaa\n").on("docker ps", "")
    runner.on("docker rmi", status=1, stderr="conflict: unable to delete")

    with pytest.raises(CommandFailed, match="unable to delete"):
        images.remove("platform.cache=/cache")


def test_a_registry_that_could_not_be_filled_leaves_no_container(
    images: Images, runner: FakeRunner, tmp_path: Path
) -> None:
    runner.on("docker run", "id").on("docker port", "127.0.0.1:33333\n").on("docker tag").on("docker rm").on(
        "docker rmi"
    )
    runner.on("docker push", status=1, stderr="no space left on device")

    with pytest.raises(CommandFailed, match="no space left"):
        images.fill_registry(tmp_path, "platform-machine:abc", {"web:1": "platform-web:abc"})
    assert runner.calls[-1].startswith("docker rm --force --volumes platform-fill-registry-")
    assert runner.calls[-2] == "docker rmi --no-prune 127.0.0.1:33333/web:1"


def test_a_registry_that_does_not_listen_yet_is_pushed_to_again(
    images: Images, runner: FakeRunner, tmp_path: Path
) -> None:
    runner.on("docker run", "id").on("docker port", "127.0.0.1:33333\n").on("docker tag").on("docker rm").on(
        "docker rmi"
    )
    runner.on("docker push", status=1, stderr="connection refused", does=lambda: runner.on("docker push"))

    images.fill_registry(tmp_path, "platform-machine:abc", {"web:1": "platform-web:abc"})
    assert len([call for call in runner.calls if call.startswith("docker push")]) == 2
