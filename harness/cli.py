"""bin/platform: the commands, and the exit status that each error ends with."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ExitStatus, HarnessError, Misconfigured
from harness.runs.interrupts import outlive_the_terminal
from harness.seams.patience import patience
from harness.text import clean, did_you_mean

# What a command needs beside this it imports itself: `--help` needs none of it.
if TYPE_CHECKING:
    from harness.runs.acceptance import Acceptance

ROOT = Path(__file__).resolve().parent.parent
# The operator's commands, which have a command line of their own, and what they are
OPERATORS = {
    "use-new-discovery-url": "harness.commands.use_new_discovery_url",
    "deploy-blog": "harness.commands.deploy_blog",
    "etcd-backup": "harness.commands.etcd_backup",
}


def main(argv: Sequence[str]) -> int:
    """Runs one command; its exit status."""
    try:
        if argv and argv[0] in OPERATORS:
            return int(importlib.import_module(OPERATORS[argv[0]]).main(argv[1:]))
        parser, commands = _parser()
        if argv and not argv[0].startswith("-") and argv[0] not in commands:
            near = did_you_mean(argv[0], commands)
            raise Misconfigured(f"there is no command {argv[0]}: {near}all are listed by `make help`")
        arguments, rest = parser.parse_known_args(argv)
        if rest and arguments.do not in (_check, _test):
            parser.error(f"{argv[0]} does not take {' '.join(rest)} (see bin/platform {argv[0]} --help)")
        arguments.rest = rest
        patience()  # a wrong one is said before anything is made
        return int(arguments.do(arguments) or ExitStatus.VERIFIED)
    except HarnessError as failed:
        print(clean(f"platform: {failed}"), file=sys.stderr)
        return failed.status
    except KeyboardInterrupt:
        print("platform: interrupted", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    except Exception:  # noqa: BLE001  Python's own status would be 1: "the platform is wrong"
        print(clean(traceback.format_exc()), file=sys.stderr)
        return ExitStatus.INTERNAL_ERROR
    except SystemExit as usage:
        # argparse has printed the line; its own status for wrong usage is 2, which here means interrupted
        return ExitStatus.MISCONFIGURED if usage.code else ExitStatus.VERIFIED


@dataclass(frozen=True)
class Command:
    """A command: what it does in one line, what more its --help says, and what adds its options."""

    do: Callable[[argparse.Namespace], int | None]
    about: str
    more: str = ""
    options: tuple[Callable[[argparse.ArgumentParser], None], ...] = ()


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """The command line, and the commands it knows."""
    parser = argparse.ArgumentParser(
        prog="platform",
        description="Builds the platform, and proves its runbook.",
        epilog="Exit status: 0 verified, 1 the platform is wrong, 2 interrupted, 3 internal error, 4 wrong usage or "
        "configuration, 5 nothing was verified, 6 the environment failed.",
    )
    added = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        about = command.about
        described = f"{about[0].upper()}{about[1:]}. {command.more}".strip()
        options = added.add_parser(name, help=about, description=described)
        options.set_defaults(do=command.do)
        for add in command.options:
            add(options)
    for name, about in (
        ("use-new-discovery-url", "put a new discovery URL into terraform.tfvars"),
        ("deploy-blog", "bring the contents of a blog to every machine"),
        ("etcd-backup", "save what the cluster's etcd knows of units and deployments, or restore it"),
    ):
        added.add_parser(name, help=about, add_help=False)
    return parser, list(added.choices)


# -- options -----------------------------------------------------------------------------------------------------------


def _keep_option(options: argparse.ArgumentParser) -> None:
    keep = options.add_argument("--keep", action="store_true", help="keep the cluster (also: KEEP=1)")
    keep.default = os.environ.get("KEEP", "") not in ("", "0")


def _choosing_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("-m", metavar="TAGS", dest="tags", help="scenarios of these tags, as pytest chooses them")
    options.add_argument("-k", metavar="WORDS", dest="words", help="scenarios with these words in their titles")
    options.add_argument("features", nargs="*", metavar="FEATURE[:LINE]", help="features, or the scenario at a line")


def _size_option(options: argparse.ArgumentParser) -> None:
    size = options.add_argument("--machines", type=_number, metavar="N", help="size of the cluster (also: MACHINES=N)")
    size.default = os.environ.get("MACHINES") or None  # argparse reads it as it would read the option


def _target_option(options: argparse.ArgumentParser) -> None:
    options.add_argument("--target", default=os.environ.get("TARGET") or "local", help="a folder of infra/")


def _run_option(
    options: argparse.ArgumentParser,
    which: str = "the run whose cluster it is (also: RUN=ID); needed when several stand",
) -> None:
    options.add_argument("--run", metavar="ID", help=which, default=os.environ.get("RUN") or None)


def _mutates_option(options: argparse.ArgumentParser) -> None:
    options.add_argument("--mutates", action="store_true", help="do not leave out what changes something")


def _json_option(options: argparse.ArgumentParser) -> None:
    options.add_argument("--json", action="store_true", help="print what was found for programs")


def _drill_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("--list", action="store_true", default=bool(os.environ.get("LIST")), help="list the faults")
    options.add_argument("--only", metavar="NAME", help="this fault only")
    options.add_argument("--layer", help="the faults of this layer only")
    _run_option(options, "a run whose cluster was built for drills, by `drill --keep`, and no other (also: RUN=ID)")


def _outputs_options(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--outputs",
        type=Path,
        metavar="FILE",
        help="the cluster is the one of these outputs, as `terraform output -json` prints them",
    )
    options.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="with --outputs: the operator's private SSH key (else the keys of your ssh-agent)",
    )


def _out_option(options: argparse.ArgumentParser) -> None:
    options.add_argument("--out", type=Path, metavar="DIR", help="where to (default: .runs)")


def _suite_argument(options: argparse.ArgumentParser) -> None:
    options.add_argument("suite", nargs="?", default=os.environ.get("SYSTEM") or "bookworm", help="such as trixie")


def _hosts_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("number", nargs="?", type=_number, metavar="N", default=os.environ.get("N") or "3")
    system = os.environ.get("SYSTEM") or "bookworm"
    options.add_argument("--system", default=system, help="such as trixie (also: SYSTEM=trixie)")
    options.add_argument("--remove", action="store_true", help="remove them")


def _files_argument(options: argparse.ArgumentParser) -> None:
    options.add_argument("files", nargs="+", type=Path, metavar="FILE", help="unit files, of anybody")


def _bench_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("--rounds", type=int, default=5, help="medians are over this many rounds")
    options.add_argument(
        "--facts",
        action="store_true",
        help="instead: what asking twenty facts of every machine of a "
        "standing cluster costs, by our backend, testinfra's own, and a shell loop",
    )


def _folder_argument(options: argparse.ArgumentParser) -> None:
    options.add_argument("folder", type=Path, help="the run's folder, .runs/RUN-ID")


def _number(text: str) -> int:
    if not text.isdecimal():
        raise Misconfigured(f"machines = {text}: give a whole number")
    return int(text)


def _acceptance(arguments: argparse.Namespace) -> int:
    for feature in arguments.features:
        if not Path(feature.partition(":")[0]).is_file():
            raise Misconfigured(f"there is no {feature}: choose by a file of features/, as features/08_site.feature")
    options = (("-m", arguments.tags), ("-k", arguments.words))
    selection = [word for option, value in options if value for word in (option, value)] + arguments.features
    return _built(arguments, "acceptance", selection)(selection, keep=arguments.keep)


def _recovery(arguments: argparse.Namespace) -> int:
    from harness.runs.acceptance import SLOW

    return _built(arguments, "recovery", SLOW)(SLOW, keep=arguments.keep)


def _up(arguments: argparse.Namespace) -> int:
    from harness.runs.acceptance import BUILDING

    return _built(arguments, "up")(BUILDING, keep=True)


def _built(arguments: argparse.Namespace, command: str, selection: Sequence[str] = ()) -> Acceptance:
    from harness.runs.acceptance import Acceptance
    from harness.runs.workplace import known_target

    known_target(ROOT, arguments.target)
    size = [] if arguments.machines is None else ["--machines", str(arguments.machines)]
    return Acceptance(
        ROOT, arguments.target, arguments.machines, [command, "--target", arguments.target, *size, *selection]
    )


def _shell(arguments: argparse.Namespace) -> int | None:
    if arguments.run is None:
        return _built(arguments, "shell").by_hand()
    from harness.runs.check import join
    from harness.runs.standing import chosen

    join(ROOT, chosen(ROOT, arguments.run))
    return None


def _check(arguments: argparse.Namespace) -> int:
    from harness.runs.check import check
    from harness.runs.standing import chosen

    return check(ROOT, chosen(ROOT, arguments.run), arguments.rest, mutates=arguments.mutates)


def _nightly(arguments: argparse.Namespace) -> int:
    from harness.runs.check import Check, nightly
    from harness.runs.standing import chosen

    if arguments.outputs is None:
        return nightly(ROOT, chosen(ROOT, arguments.run), as_json=arguments.json)
    check = Check.of_outputs(ROOT, ["nightly"], arguments.target, arguments.outputs, arguments.key)
    return check(quiet=True, as_json=arguments.json)


def _diagnose(arguments: argparse.Namespace) -> int:
    from harness.commands.diagnose import diagnose, diagnosed
    from harness.runs.check import Check
    from harness.runs.standing import chosen

    if arguments.outputs is None:
        return diagnose(ROOT, chosen(ROOT, arguments.run), as_json=arguments.json)
    check = Check.of_outputs(ROOT, ["diagnose"], arguments.target, arguments.outputs, arguments.key, keyless=True)
    return diagnosed(check, as_json=arguments.json)


def _drill(arguments: argparse.Namespace) -> int:
    from harness.commands.drill import drill, listed
    from harness.runs.faults import chosen_faults, read_faults

    faults = chosen_faults(read_faults(), arguments.only, arguments.layer)
    if arguments.list:
        print(listed(faults))
        return ExitStatus.VERIFIED
    return drill(ROOT, faults, arguments.run, keep=arguments.keep, target=arguments.target)


def _down(arguments: argparse.Namespace) -> None:
    from harness.runs.acceptance import down
    from harness.runs.standing import chosen

    folder = chosen(ROOT, arguments.run, gone_too=True)
    down(ROOT, folder)
    print(f"nothing of run {folder.name} is left")


def _runbook(arguments: argparse.Namespace) -> None:
    from harness.reports.page import write_page

    for path in write_page(ROOT, arguments.out):
        print(os.path.relpath(path))


def _setup(arguments: argparse.Namespace) -> int:
    from harness.commands.prepared import prepared
    from harness.setup.toolchain import FOR_A_RUN

    with prepared(ROOT, FOR_A_RUN):
        return ExitStatus.VERIFIED


def _test(arguments: argparse.Namespace) -> int:
    from harness.commands.own_checks import test

    return test(ROOT, arguments.rest)


def _lint(arguments: argparse.Namespace) -> int:
    from harness.commands.own_checks import lint

    return lint(ROOT)


def _lint_units(arguments: argparse.Namespace) -> int:
    from harness.model.unit_lint import lint_files

    remarks = lint_files(arguments.files)
    for line in (*remarks.lines, *remarks.good):
        print(clean(line))
    return ExitStatus.PLATFORM_WRONG if remarks.fail else ExitStatus.VERIFIED


def _try_system(arguments: argparse.Namespace) -> int:
    from harness.commands.try_system import try_system

    return try_system(ROOT, arguments.suite)


def _hosts(arguments: argparse.Namespace) -> None:
    from harness.commands.hosts import make_hosts, remove_hosts

    print(remove_hosts(ROOT) if arguments.remove else make_hosts(ROOT, arguments.number, arguments.system))


def _bench(arguments: argparse.Namespace) -> None:
    if arguments.facts:
        from harness.commands.bench_facts import table_of_facts
        from harness.runs.check import on_cluster
        from harness.runs.standing import chosen

        with on_cluster(ROOT, chosen(ROOT, arguments.run), ["bench", "--facts"]) as execution:
            print(table_of_facts(execution, arguments.rounds))
        return
    from harness.commands.bench import bench, shown

    print(shown(bench(ROOT, arguments.rounds)))


def _report(arguments: argparse.Namespace) -> None:
    from harness.runs.execution import write_record

    if not (arguments.folder / "events.jsonl").is_file():
        raise Misconfigured(f"{arguments.folder} is no run's folder: it has no events.jsonl")
    write_record(arguments.folder)
    print(arguments.folder / "report.html")


def _clean(arguments: argparse.Namespace) -> None:
    from harness.commands.clean import clean as cleaned

    print(cleaned(ROOT))


COMMANDS = {
    "acceptance": Command(
        _acceptance,
        "execute the runbook on a cluster built for it, and remove it",
        "What is not chosen is NOT RUN, but for what builds the cluster; where nothing is, what is slow.",
        (_choosing_options, _keep_option, _size_option, _target_option),
    ),
    "recovery": Command(
        _recovery,
        "the disasters that take minutes, on a cluster built for them",
        "The scenarios that acceptance leaves out as slow.",
        (_keep_option, _size_option, _target_option),
    ),
    "up": Command(
        _up, "build a cluster by the runbook's commands, and keep it", options=(_size_option, _target_option)
    ),
    "check": Command(
        _check,
        "what must hold on a standing cluster; choose as pytest does",
        "Further arguments choose as pytest's do: a feature (features/08_site.feature, or a line of it, "
        "features/08_site.feature:7), a tag (-m site), words of a title (-k blog). What changes something is left out.",
        (_mutates_option, _run_option),
    ),
    "nightly": Command(
        _nightly,
        "all that must hold on a standing cluster, changing nothing; one line when all is well",
        "For cron: the exit status tells how it ended.",
        (_json_option, _outputs_options, _target_option, _run_option),
    ),
    "diagnose": Command(
        _diagnose,
        "what is wrong with a standing cluster, what to do, and all evidence in one file; within 30 seconds",
        "It changes nothing, and works on a cluster of which half is gone.",
        (_json_option, _outputs_options, _target_option, _run_option),
    ),
    "drill": Command(
        _drill,
        "break a cluster on purpose, one fault at a time, and see whether the nightly names it",
        "On a cluster that is built for it, and removed.",
        (_drill_options, _keep_option, _target_option),
    ),
    "down": Command(_down, "remove a standing cluster, or what is left of one", options=(_run_option,)),
    "shell": Command(
        _shell,
        "a shell to type the runbook by hand in: of a new cluster, removed at its end, or of RUN",
        "With --run: in the workplace of a standing cluster, which stays.",
        (_size_option, _target_option, _run_option),
    ),
    "setup": Command(_setup, "install and build what a run needs, and nothing else"),
    "runbook": Command(
        _runbook, "write the runbook as a page, each step with its last evidence", options=(_out_option,)
    ),
    "test": Command(
        _test, "the harness's own tests: offline, without Docker", "Further arguments choose as pytest's do."
    ),
    "try-system": Command(
        _try_system,
        "both commands of the README in a bare SYSTEM (bookworm, trixie, noble), from nothing",
        "In namespaces of its own, with a clean clone of HEAD; needs root. Prints the README's row about that system.",
        (_suite_argument,),
    ),
    "hosts": Command(
        _hosts,
        "make N stock hosts (plain Debian or Ubuntu, as containers) for TARGET=hosts, or remove them",
        "Those that are there stay; they last until --remove.",
        (_hosts_options,),
    ),
    "lint-units": Command(
        _lint_units,
        "what fleet would make of unit files, before anything is loaded",
        "Exit status 1 when fleet refuses one, or takes it otherwise than it says.",
        (_files_argument,),
    ),
    "lint": Command(_lint, "style, types, shell and Terraform; reports all problems"),
    "bench": Command(
        _bench,
        "what the runbook costs beside a plain script (a warm machine, no other load)",
        options=(_bench_options, _run_option),
    ),
    "report": Command(_report, "write run.json, report.html and junit.xml of a run again", options=(_folder_argument,)),
    "clean": Command(_clean, "remove the cache, the images and the run folders"),
}

if __name__ == "__main__":
    outlive_the_terminal()
    sys.exit(main(sys.argv[1:]))
