"""Unit files: what fleet holds of one otherwise than it is written. How they are read: tests/drivers/test_units.py."""

from __future__ import annotations

import pytest

from harness.model.unit_file import differences, image_of, parse, stored, written

FILE = b"[Unit]\nDescription=a\n[Service]\nRestartSec=3\nExecStartPre=/a\nExecStartPre=/b\nRestart=always\n"


def test_what_fleet_holds_otherwise_is_said_option_by_option() -> None:
    held = (
        ("Unit", "Description", "a"),
        ("Service", "RestartSec", "0"),
        ("Service", "ExecStartPre", "/b"),
        ("Service", "ExecStartPre", "/a"),
        ("X-Fleet", "Global", "true"),
    )

    assert differences(stored(FILE), stored(FILE)) == []
    assert differences(stored(FILE), held) == [
        "[Service] RestartSec is '3' in its file, and '0' in fleet",
        "[Service] ExecStartPre is '/a', '/b' in its file, and '/b', '/a' in fleet",
        "[Service] Restart is 'always' in its file, and not there in fleet",
        "[X-Fleet] Global is not there in its file, and 'true' in fleet",
    ]


def test_what_fleet_writes_is_read_as_it_was() -> None:
    text = b"[Service]\nExecStartPre=-/a\n[X-Fleet]\nGlobal=true\n[Service]\nExecStart=/c \\\n  d\n"

    assert written(parse(text).options) == (
        b"[Service]\nExecStartPre=-/a\nExecStart=/c \\\n  d\n\n[X-Fleet]\nGlobal=true\n"
    )
    assert stored(written(stored(text))) == stored(text)


@pytest.mark.parametrize(
    ("start", "environment", "image"),
    [
        ("/usr/bin/docker run --rm \\\n --name web \\\n ${IMAGE_REGISTRY}/${IMAGE} nginx", "IMAGE=web:1", "web:1"),
        ("/usr/bin/docker run $IMAGE_REGISTRY/a/web:2", "", "a/web:2"),
        ("/usr/bin/docker run ${IMAGE_REGISTRY}/${NAME}:${TAG}", '"NAME=web" TAG=3', "web:3"),
        ("/usr/bin/docker run ${IMAGE_REGISTRY}/web", "", "web:latest"),
        ("/usr/bin/docker run ${IMAGE_REGISTRY}/web@sha256:01", "", ""),
        ("/usr/bin/docker run ${IMAGE_REGISTRY}/${IMAGE}", "", ""),
        ("/usr/bin/docker run debian:12", "", ""),
        ("/home/core/name/publish.sh ${IMAGE_REGISTRY}/web:1", "", ""),
    ],
)
def test_image_of_a_unit_is_what_it_runs_from_the_clusters_registry(start: str, environment: str, image: str) -> None:
    pull = ("Service", "ExecStartPre", "/home/core/image/fetch.sh ${IMAGE_REGISTRY}/other:1")
    options = (("Service", "Environment", environment), pull, ("Service", "ExecStart", start))

    assert image_of(options) == image
