"""Images in this machine's Docker Engine: made once, removed by label, and put into a registry's storage."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.errors import CommandFailed
from harness.seams.process import Runner
from harness.seams.wait import NotYet, Waiter
from harness.setup.cache import Cache
from harness.setup.engine import Engine
from harness.setup.packages import Packages


class Images:
    """The images of one engine, through its command line client."""

    def __init__(self, process: Runner, waiter: Waiter, packages: Packages, engine: Engine) -> None:
        self._process = process
        self._waiter = waiter
        self._packages = packages
        self._engine = engine

    def make(self, tag: str, cache: Cache, build: Callable[[], str]) -> str:
        """Makes the image `tag` unless the engine has it. `build` gives an image id, tagged only when it is whole."""
        if self._has(tag):
            return "cached"
        with cache.locked(tag.replace(":", "-")):
            if self._has(tag):
                return "cached"
            self._process.run(["docker", "tag", build(), tag])
        return "done"

    def _has(self, tag: str) -> bool:
        return self._process.run(["docker", "image", "inspect", "--format", "{{.Id}}", tag], ok=(0, 1)).status == 0

    def remove(self, label: str) -> bool:
        """Removes the images with this label (`name=value`), but for those that a run's containers run from. False when
        no engine answers."""
        if not self._engine.answers():
            return False
        # by name: an image that others are built from cannot be removed by its id before them
        name = "{{.Repository}}:{{.Tag}}"
        listed = ["docker", "image", "ls", "--format", name, "--filter", f"label={label}"]
        for image in self._process.run(listed).stdout.split():
            using = ["docker", "ps", "--quiet", "--filter", f"ancestor={image}"]
            if not self._process.run(using).stdout.strip():
                self._process.run(["docker", "rmi", "--force", image])
        return True

    def import_root(self, builder: Sequence[str], labels: Mapping[str, str], entrypoint: Sequence[str] = ()) -> str:
        """An image from the tar archive that `builder OUT` writes, streamed; its id."""
        changes = [f"LABEL {name}={json.dumps(value)}" for name, value in labels.items()]
        changes += [f"ENTRYPOINT {json.dumps(list(entrypoint))}"] if entrypoint else []
        options = " ".join(f"--change {shlex.quote(change)}" for change in changes)
        # pipefail: the engine would take a truncated archive for a whole one; umask: hooks make for all to read
        script = (
            f"set -o pipefail; umask 022; {shlex.join(self._packages.as_root(builder))} - | docker import {options} -"
        )
        return self._process.run(["bash", "-c", script], within=1800).stdout.strip().splitlines()[-1]

    def build(self, context: Path, arguments: Mapping[str, str], labels: Mapping[str, str]) -> str:
        """An image from a Dockerfile whose base is local; its id. With the engine's own builder: no plugin needed."""
        values = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        values += [f"--label={name}={value}" for name, value in labels.items()]
        argv = ["docker", "build", "--quiet", "--force-rm", *values, str(context)]
        return self._process.run(argv, add_env={"DOCKER_BUILDKIT": "0"}, within=600).stdout.strip()

    def fill_registry(self, storage: Path, registry_image: str, images: Mapping[str, str]) -> None:
        """Fills a registry's storage folder: pushes each local image (value) under the name units use (key)."""
        name = f"platform-fill-registry-{os.getpid()}"
        # what it writes is this user's, who has to be able to remove it
        run = ["docker", "run", "--detach", "--name", name, "--user", f"{os.geteuid()}:{os.getegid()}"]
        run += ["--volume", f"{storage}:/var/lib/registry"]
        run += ["--publish", "127.0.0.1::5000", "--entrypoint", "/usr/bin/docker-registry", registry_image]
        try:
            self._process.run([*run, "serve", "/etc/platform/registry.yml"])
            address = self._process.run(["docker", "port", name, "5000/tcp"]).stdout.split()[0]
            for wanted, local in images.items():
                # the engine takes any registry on loopback, without TLS
                self._process.run(["docker", "tag", local, f"{address}/{wanted}"])
                try:
                    self._push(f"{address}/{wanted}")
                finally:
                    self._process.run(["docker", "rmi", "--no-prune", f"{address}/{wanted}"])
        finally:
            self._process.run(["docker", "rm", "--force", "--volumes", name])

    def _push(self, reference: str) -> None:
        def probe() -> bool:
            try:
                self._process.run(["docker", "push", "--quiet", reference])
            except CommandFailed as failed:
                if "refused" in failed.stderr or "EOF" in failed.stderr:
                    raise NotYet("the registry does not listen yet") from failed
                raise
            return True

        self._waiter.until(f"{reference} is in the registry", probe, bool, within=30)
