"""bin/platform: the commands, and the exit status that each error ends with."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from harness import deploy, discovery
from harness.cache import Cache, cache_folder
from harness.errors import EnvironmentFailed, ExitStatus, HarnessError, Misconfigured
from harness.inventory import Inventory

ROOT = Path(__file__).resolve().parent.parent


def main(argv: Sequence[str]) -> int:
    """Runs one command; its exit status."""
    # the operator's commands have a command line of their own
    operators = {"use-new-discovery-url": discovery.main, "deploy-blog": deploy.main}
    try:
        if argv and argv[0] in operators:
            return operators[argv[0]](argv[1:])
        arguments = _parser().parse_args(argv)
        return int(arguments.do(arguments))
    except HarnessError as failed:
        print(f"platform: {failed}", file=sys.stderr)
        return failed.status
    except KeyboardInterrupt:
        print("platform: interrupted", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    except Exception:  # noqa: BLE001  Python's own status would be 1: "the platform is wrong"
        traceback.print_exc()
        return ExitStatus.INTERNAL_ERROR
    except SystemExit as usage:
        # argparse has printed the line; its own status for wrong usage is 2, which here means interrupted
        return ExitStatus.MISCONFIGURED if usage.code else ExitStatus.VERIFIED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="platform", description="Builds the platform, and proves its runbook.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    acceptance = commands.add_parser("acceptance", help="execute the runbook on a cluster built for it, and remove it")
    acceptance.add_argument("--target", default=os.environ.get("TARGET") or "local", help="a folder of infra/")
    acceptance.set_defaults(do=_acceptance)
    shell = commands.add_parser("shell", help="a shell to type the runbook by hand in; at its end all is removed")
    shell.add_argument("--target", default=os.environ.get("TARGET") or "local", help="a folder of infra/")
    shell.set_defaults(do=_shell)
    setup = commands.add_parser("setup", help="install and build what a run needs, and nothing else")
    setup.set_defaults(do=_setup)
    test = commands.add_parser("test", help="the harness's own tests: offline, without Docker")
    test.add_argument("pytest", nargs="*", help="what to choose, as pytest takes it")
    test.set_defaults(do=_test)
    lint = commands.add_parser("lint", help="style, types, shell and Terraform; reports all problems")
    lint.set_defaults(do=_lint)
    bench = commands.add_parser(
        "bench", help="what the runbook costs beside a plain script (a warm machine, no other load)"
    )
    bench.add_argument("--rounds", type=int, default=5, help="medians are over this many rounds")
    bench.set_defaults(do=_bench)
    down = commands.add_parser("down", help="remove what a run left whose teardown was not complete")
    down.add_argument("folder", type=Path, help="the run's folder, .runs/RUN-ID")
    down.set_defaults(do=_down)
    again = commands.add_parser("report", help="write run.json, report.html and junit.xml of a run again")
    again.add_argument("folder", type=Path, help="the run's folder, .runs/RUN-ID")
    again.set_defaults(do=_report)
    clean = commands.add_parser("clean", help="remove the cache, the images and the run folders")
    clean.set_defaults(do=_clean)
    for name, about in (
        ("use-new-discovery-url", "put a new discovery URL into terraform.tfvars"),
        ("deploy-blog", "bring the contents of a blog to every machine"),
    ):
        commands.add_parser(name, help=about, add_help=False)
    return parser


def _acceptance(arguments: argparse.Namespace) -> int:
    from harness.acceptance import Acceptance

    _known_target(arguments.target)
    return Acceptance(ROOT, arguments.target, ["acceptance", "--target", arguments.target])()


def _shell(arguments: argparse.Namespace) -> int:
    from harness.acceptance import Acceptance

    _known_target(arguments.target)
    return Acceptance(ROOT, arguments.target, ["shell", "--target", arguments.target]).by_hand()


def _setup(arguments: argparse.Namespace) -> int:
    from harness.toolchain import FOR_A_RUN, prepared

    with prepared(ROOT, FOR_A_RUN):
        return ExitStatus.VERIFIED


def _test(arguments: argparse.Namespace) -> int:
    from harness.toolchain import FOR_TESTS, prepared

    with prepared(ROOT, FOR_TESTS) as toolchain:
        environment = toolchain.environment_of_tests()
    chosen = arguments.pytest or ["tests"]
    return _pytest_status(
        subprocess.run([sys.executable, "-m", "pytest", *chosen], cwd=ROOT, env=environment).returncode
    )


def _pytest_status(status: int) -> int:
    """pytest's exit status in our terms: its 1 is ours, its 5 is that nothing ran."""
    known = {0: ExitStatus.VERIFIED, 1: ExitStatus.PLATFORM_WRONG, 2: ExitStatus.INTERRUPTED}
    known |= {4: ExitStatus.MISCONFIGURED, 5: ExitStatus.NOTHING_VERIFIED}
    return known.get(status, ExitStatus.INTERNAL_ERROR)


def _lint(arguments: argparse.Namespace) -> int:
    from harness.toolchain import FOR_TESTS, prepared

    with prepared(ROOT, FOR_TESTS) as toolchain:
        environment = toolchain.environment_of_tests()
    scripts = _shell_scripts()
    checks = [
        [sys.executable, "-m", "ruff", "check"],
        [sys.executable, "-m", "ruff", "format", "--check"],
        [sys.executable, "-m", "mypy"],
        [str(Path(sys.executable).with_name("shellcheck")), "--severity=warning", *scripts],
        ["terraform", "fmt", "-check", "-recursive", "infra"],
    ]
    failed = [check for check in checks if subprocess.run(check, cwd=ROOT, env=environment).returncode != 0]
    for check in failed:
        print(f"platform: lint: {Path(check[0]).name} {' '.join(check[1:4])} found problems", file=sys.stderr)
    return ExitStatus.PLATFORM_WRONG if failed else ExitStatus.VERIFIED


def _shell_scripts() -> list[str]:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    return [name for name in tracked if (ROOT / name).read_bytes().startswith((b"#!/bin/sh", b"#!/usr/bin/env bash"))]


def _bench(arguments: argparse.Namespace) -> int:
    from harness.bench import bench, shown

    print(shown(bench(ROOT, arguments.rounds)))
    return ExitStatus.VERIFIED


def _down(arguments: argparse.Namespace) -> int:
    from harness.toolchain import prepared

    folder = _run_folder(arguments)
    with prepared(ROOT, ("docker engine",)) as toolchain:
        inventory = Inventory(toolchain.process, toolchain.recorder, folder.name, folder)
        inventory.sweep()
        left = [f"{leak.what} {leak.name}" for leak in inventory.leaks()]
    for kept in ("operator", "ground"):
        shutil.rmtree(folder / kept, ignore_errors=True)
    if left:
        raise EnvironmentFailed(f"of run {folder.name} remain: {', '.join(left)}")
    print(f"nothing of run {folder.name} is left")
    return ExitStatus.VERIFIED


def _run_folder(arguments: argparse.Namespace) -> Path:
    folder: Path = arguments.folder.resolve()
    if not (folder / "events.jsonl").is_file():
        raise Misconfigured(f"{arguments.folder} is no run's folder: it has no events.jsonl")
    return folder


def _report(arguments: argparse.Namespace) -> int:
    from harness.acceptance import write_record

    _run_folder(arguments)
    write_record(arguments.folder)
    print(arguments.folder / "report.html")
    return ExitStatus.VERIFIED


def _clean(arguments: argparse.Namespace) -> int:
    from harness.toolchain import forget_everything

    forget_everything(ROOT)
    shutil.rmtree(ROOT / ".runs", ignore_errors=True)
    folder = Cache(cache_folder()).folder
    shutil.rmtree(folder)
    print(f"removed {folder}, .runs and the images platform-*")
    return ExitStatus.VERIFIED


def _known_target(target: str) -> None:
    from harness.run import targets

    if target not in targets(ROOT):
        raise Misconfigured(f"there is no target {target}: targets are {', '.join(targets(ROOT))}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
