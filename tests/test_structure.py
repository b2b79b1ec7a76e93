"""The guards of the structure: what the tools would pass over in silence, and what the rooms of the house may know.

Each guard is a function that takes a checkout and gives one line for each fault. It is held against this checkout, and
against small trees that are broken on purpose, so that every guard has been seen red.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pytest_bdd.parser import Feature, FeatureParser, Scenario, ScenarioTemplate
from pytest_bdd.scenario import scenario_wrapper_template_registry
from pytest_bdd.steps import StepFunctionContext, step_function_context_registry

from harness import PACKAGES
from harness.drivers.units import UnitFile, read_units
from harness.errors import Misconfigured
from harness.model.placement import matches
from harness.model.unit_lint import lint

ROOT = Path(__file__).parent.parent
Guard = Callable[[Path], list[str]]


# == reading a checkout ==============================================================================================


def features(root: Path) -> list[Feature]:
    return [FeatureParser(str(root), str(path.relative_to(root))).parse() for path in feature_files(root)]


def feature_files(root: Path) -> list[Path]:
    return sorted((root / "features").rglob("*.feature"))


def rendered(template: ScenarioTemplate) -> list[Scenario]:
    """The scenarios that a template stands for: one for each row of its examples."""
    contexts = [context for examples in template.examples for context in examples.as_contexts()]
    return [template.render(context) for context in contexts or [{}]]


def scenarios_of(root: Path) -> list[Scenario]:
    return [it for feature in features(root) for template in feature.scenarios.values() for it in rendered(template)]


@dataclass(frozen=True)
class Definition:
    """A step that is defined: given, when or then (None: each of them), its phrase, and where."""

    type: str | None
    phrase: str
    where: str
    context: StepFunctionContext

    def matches(self, type_: str, text: str) -> bool:
        return self.type in (None, type_) and bool(self.context.parser.is_matching(text))


def load(path: Path) -> ModuleType:
    """Loads a module from its file, under a name of its own."""
    name = f"structure_{next(_numbers)}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


_numbers = itertools.count()


def definitions(root: Path) -> list[Definition]:
    found = []
    for path in sorted((root / "steps").glob("*.py")):
        module = load(path)  # kept: what it defines is known by it only
        contexts = [it for it in step_function_context_registry.values() if it.step_func.__module__ == module.__name__]
        found += [
            Definition(it.type, str(it.parser.name), f"{path.stem}.{it.step_func.__name__}", it) for it in contexts
        ]
    return sorted(found, key=lambda definition: (definition.phrase, definition.where))


PASSED_OVER = {".git", ".runs", ".venv", ".ci-cache", ".terraform", "__pycache__", ".hypothesis"}
PASSED_OVER |= {".pytest_cache", ".mypy_cache", ".ruff_cache", "node_modules"}


def texts(root: Path) -> Iterator[tuple[str, str]]:
    """Every text file that could be committed: path, text. This file is not: it names what it forbids."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(set(names) - PASSED_OVER)
        for path in (Path(folder) / name for name in sorted(files)):
            if path.name == Path(__file__).name or path.is_symlink():
                continue
            try:
                yield path.relative_to(root).as_posix(), path.read_text()
            except UnicodeDecodeError:
                continue


def python_files(root: Path, *places: str) -> Iterator[tuple[str, ast.Module]]:
    """Python files below these places, by their suffix or their first line: path, syntax tree."""
    for path, text in texts(root):
        inside = any(path == place or path.startswith(f"{place}/") for place in places)
        if inside and (path.endswith(".py") or re.match(r"#!.*\bpython", text)):
            yield path, parsed(text)


@functools.cache
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of every import, also those inside functions; "." for one that is relative."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield node.lineno, ast.unparse(node.args[0]).strip("'\"") if node.args else "?"


# == steps ===========================================================================================================


def phrases_defined_twice(root: Path) -> list[str]:
    """pytest-bdd takes the one that was loaded last, and says nothing. One function may be Given and Then at once."""
    faults = []
    for phrase, group in itertools.groupby(definitions(root), key=lambda definition: definition.phrase):
        found = list(group)
        types = Counter(definition.type for definition in found)
        if len({definition.where for definition in found}) > 1 or max(types.values()) > 1:
            faults.append(f"{phrase!r} is defined by {', '.join(definition.where for definition in found)}")
    return faults


def phrases_not_used(root: Path) -> list[str]:
    steps = [(step.type, step.name) for scenario in scenarios_of(root) for step in scenario.steps]
    return [
        f"{it.where}: no feature says {it.type} {it.phrase!r}"
        for it in definitions(root)
        if not any(it.matches(*step) for step in steps)
    ]


def steps_not_resolved(root: Path) -> list[str]:
    """Steps of the features that no definition, or more than one, stands for."""
    known = definitions(root)
    faults = []
    for scenario in scenarios_of(root):
        for step in scenario.steps:
            found = [it.where for it in known if it.matches(step.type, step.name)]
            if len(found) != 1:
                where = f"{Path(scenario.feature.filename).name}:{step.line_number}"
                faults.append(f"{where}: {step.keyword} {step.name}: {' and '.join(found) or 'not defined'}")
    return faults


def step_modules_not_loaded(root: Path) -> list[str]:
    """Modules that define steps and are no plugins of the composition root, and plugins that define none."""
    tree = ast.parse((root / "conftest.py").read_text())
    plugins: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytest_plugins":
            plugins = ast.literal_eval(node.value)
    plugins = [name for name in plugins if name.startswith("steps.")]
    defining = {f"steps.{definition.where.split('.')[0]}" for definition in definitions(root)}
    return sorted(f"{name}: not in pytest_plugins" for name in defining - set(plugins)) + sorted(
        f"{name}: a plugin that defines no steps" for name in set(plugins) - defining
    )


# == features ========================================================================================================

TITLE = re.compile(r"^\s*(?:Scenario|Example|Scenario Outline|Scenario Template):\s*(.*?)\s*$", re.MULTILINE)
COSTS = {"mutates", "destructive", "slow"}
MUTATING = {"mutates", "destructive"}


# of a feature file: what a line begins with -> by how many blanks it is indented
INDENTS = {"Feature:": 0, "Scenario": 2, "Given ": 4, "When ": 4, "Then ": 4, "And ": 4, "But ": 4, "|": 6}


def features_not_formatted(root: Path) -> list[str]:
    """Lines of features that are not where their kind stands, blanks at an end, and scenarios without a blank line
    before them."""
    faults = []
    for path in sorted((root / "features").glob("*.feature")):
        lines = path.read_text().split("\n")
        for number, line in enumerate(lines, 1):
            text, indent = line.strip(), len(line) - len(line.lstrip(" "))
            wanted = next((blanks for word, blanks in INDENTS.items() if text.startswith(word)), None)
            if line != line.rstrip() or "\t" in line:
                faults.append(f"{path.name}:{number}: a blank at its end, or a tab")
            if wanted is not None and indent != wanted:
                faults.append(f"{path.name}:{number}: indented by {indent}, not {wanted}")
            tagged = text.startswith("@") and indent == 2
            begins = tagged or (text.startswith("Scenario") and not lines[number - 2].strip().startswith("@"))
            if begins and lines[number - 2].strip():
                faults.append(f"{path.name}:{number}: no empty line before it")
    return faults


def titles_not_unique(root: Path) -> list[str]:
    """pytest-bdd drops the first of two scenarios with one title."""
    return [
        f"{path.name}: {count} scenarios are called {title!r}"
        for path in feature_files(root)
        for title, count in Counter(TITLE.findall(path.read_text())).items()
        if count > 1
    ]


def features_not_bound(root: Path) -> list[str]:
    """What features/test_runbook.py leaves out, and where it does not keep to the order of the file names."""
    module = load(root / "features/test_runbook.py")
    tests = [value for name, value in vars(module).items() if name.startswith("test")]
    templates = [it for test in tests if (it := scenario_wrapper_template_registry.get(test)) is not None]
    order = [Path(template.feature.filename).name for template in templates]
    faults = [] if order == sorted(order) else [f"bound in the order {list(dict.fromkeys(order))}"]
    for path in feature_files(root):
        written, bound = len(TITLE.findall(path.read_text())), order.count(path.name)
        if written != bound:
            faults.append(f"{path.name}: {bound} of {written} scenarios are bound")
    return faults


def tags_not_declared(root: Path) -> list[str]:
    """Tags that pyproject.toml does not declare."""
    declared = declared_tags(root)
    faults = []
    for feature in features(root):
        used = feature.tags.union(*(template.tags for template in feature.scenarios.values()))
        faults += [f"{Path(feature.filename).name}: tag @{tag} is not declared" for tag in sorted(used - declared)]
    return faults


CHOOSING = "harness/runs/plugins/choosing.py"
# Words of a step, and what a cluster must have for it
NEEDED_BY = {
    "at their names": "requires_name_server",
    "the sites' names lead": "requires_name_server",
    "is lost for good": "requires_remaking",
    "is switched on again": "requires_power",
}


def needs_that_are_wrong(root: Path) -> list[str]:
    """Tags @requires_... that nothing carries, that the choosing plugin does not look at, or that a scenario lacks: it
    would run without what it needs."""
    needs = {tag for tag in declared_tags(root) if tag.startswith("requires_")}
    used = {tag for scenario in scenarios_of(root) for tag in scenario.tags | scenario.feature.tags}
    looked_at = {
        node.value
        for node in ast.walk(parsed((root / CHOOSING).read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    faults = [f"tag @{tag} is declared, and nothing carries it" for tag in sorted(needs - used)]
    faults += [
        f"{scenario.name!r} lacks @{tag}"
        for scenario in scenarios_of(root)
        for words, tag in NEEDED_BY.items()
        if tag not in scenario.tags | scenario.feature.tags and any(words in step.name for step in scenario.steps)
    ]
    return faults + [f"tag @{tag}: {CHOOSING} does not look at it" for tag in sorted(needs - looked_at)]


def declared_tags(root: Path) -> set[str]:
    markers = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    return {marker.partition(":")[0].strip() for marker in markers}


def subjects_that_are_wrong(root: Path) -> list[str]:
    """Each feature carries one subject tag, the stem of its file (12_recovery_1_daemons is of @recovery too); its
    scenarios carry none."""
    subjects = {tag for tag in declared_tags(root) if tag not in COSTS | {"builds"} and not tag.startswith("requires_")}
    faults = []
    for feature in features(root):
        name = Path(feature.filename).name
        expected = re.sub(r"^\d+_|_\d+_.*$", "", Path(name).stem)
        if feature.tags & subjects != {expected}:
            faults.append(f"{name}: subject tags are {sorted(feature.tags & subjects)}, not @{expected}")
        faults += [
            f"{name}: scenario {template.name!r} has a subject tag"
            for template in feature.scenarios.values()
            if template.tags & subjects
        ]
    used = {tag for feature in features(root) for tag in feature.tags}
    return faults + [f"no feature is about @{subject}" for subject in sorted(subjects - used)]


def mutating_tags_that_are_wrong(root: Path) -> list[str]:
    """A scenario with a When, or with a typed command, changes something and says so; the others say that they do not.

    A read-only run takes the tag's word.
    """
    faults = []
    for scenario in scenarios_of(root):
        changes = any(it.type == "when" or it.name.startswith("the operator runs `") for it in scenario.steps)
        tagged = bool(MUTATING & (scenario.tags | scenario.feature.tags))
        if changes != tagged:
            where = f"{Path(scenario.feature.filename).name}:{scenario.line_number}"
            faults.append(f"{where}: {scenario.name!r} {'lacks @mutates' if changes else 'types no command'}")
    return faults


IN_COMMANDS = re.compile(r"`[^`]*`")
# what a feature must leave to README, targets and drivers -> where it would show. /home/core is the README's own word.
HIDDEN = {
    "an address": re.compile(
        r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,}\b|https?://|\blocalhost\b"
    ),
    "a port": re.compile(r"[a-z0-9\]]:\d{2,5}\b"),
    "an absolute path": re.compile(r'(?<![\w.])/(?!home/core(?:[/"\s,.]|$))\w[\w./-]*'),
}


def features_that_know_too_much(root: Path) -> list[str]:
    """Addresses, ports behind an address and absolute paths in the text of features, commands apart."""
    faults = []
    for path in feature_files(root):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            text = IN_COMMANDS.sub("", line).replace("text/html", "").replace("text/plain", "")
            faults += [
                f"{path.name}:{number}: names {what}: {line.strip()}" for what, it in HIDDEN.items() if it.search(text)
            ]
    return faults


# What pytest and pytest-bdd give a step beside our own fixtures
GIVEN_BY_PYTEST = {"request", "datatable", "docstring"}


def fixtures_that_nobody_makes(root: Path) -> list[str]:
    """A parameter of a fixture or step that neither a fixture nor the step's phrase gives. pytest would tell only when
    a scenario asks for it: on a cluster, minutes later."""
    made, asked = set(GIVEN_BY_PYTEST), []
    for path, tree in python_files(root, "conftest.py", "steps", "harness/runs/plugins"):
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            marks = " ".join(ast.unparse(mark) for mark in function.decorator_list)
            if not re.search(r"\b(pytest\.fixture|given|when|then)\b", marks):
                continue
            made |= {function.name} if "pytest.fixture" in marks else set()
            made |= set(re.findall(r"target_fixture='(\w+)'", marks))
            by_phrase = set(re.findall(r"\{(\w+)[:}]|\?P<(\w+)>", marks))
            given = {name for pair in by_phrase for name in pair}
            asked += [(f"{path}:{it.lineno}", it.arg) for it in function.args.args if it.arg not in given]
    return [f"{where}: nobody makes the fixture {name}" for where, name in asked if name not in made]


# == arrows run one way ==============================================================================================

ROOMS = {"harness", "steps", "features", "tests", "conftest", "infra", "units", "sites"}
# room -> which rooms it may import from
MAY_KNOW = {
    "harness": {"harness"},
    "steps": {"harness", "steps"},
    "features": set(),
    "bin": {"harness"},
    "infra": set(),
    "units": set(),
    "sites": set(),
    "container": set(),
}
# the outside world, through its seams: package -> the only files that may import it; a folder ends in a slash
SEAMS = {
    "subprocess": {
        "harness/seams/process.py",
        "harness/runs/agent.py",  # the ssh-agent
        "harness/runs/execution.py",  # pytest
        "harness/runs/acceptance.py",  # a person's shell
        "harness/commands/own_checks.py",  # the developers' tools
        "harness/commands/try_system.py",  # a system in namespaces of its own
        "harness/commands/bench.py",  # whole runs, measured from outside
        "bin/platform",  # before there is a harness
    },
    "pty": set(),
    "asyncio": set(),
    "paramiko": {"harness/seams/ssh.py"},
    "testinfra": {
        "harness/seams/ssh.py",
        "harness/commands/bench_facts.py",  # what asking costs its way, measured beside ours
    },
    "python_terraform": {"harness/drivers/terraform.py"},
    "pytest": {"conftest.py", "features/", "harness/runs/plugins/"},
    "_pytest": set(),
    "pytest_bdd": {"steps/", "features/", "harness/runs/plugins/"},
    "parse": {"steps/phrases.py"},
}
# room -> which packages it may import beside Python's own; the rooms that are left out are free
ONLY: dict[str, set[str]] = {"steps": {"harness", "steps", "pytest_bdd", "parse"}}
ONLY |= {room: set() for room in ("infra", "units", "sites", "container")}


def imports_that_go_in_a_circle(root: Path) -> list[str]:
    """Modules of the harness that know of each other, also through others and inside of functions."""
    known = {
        path.removesuffix(".py").replace("/", "."): {name for _, name in imported(tree)}
        for path, tree in python_files(root, "harness")
    }
    try:
        TopologicalSorter({name: names & set(known) for name, names in known.items()}).prepare()
    except CycleError as circle:
        return [" imports ".join(reversed(circle.args[1]))]
    return []


# modules beside the packages, which all may import
FOR_ALL = {"errors", "files", "text"}


def imports_that_packages_may_not(root: Path) -> list[str]:
    """What a package of the harness imports of another one that harness.PACKAGES does not allow; and modules that are
    in no package. `cli` stands on top."""
    faults = []
    for path, tree in python_files(root, "harness"):
        place = Path(path).parts[1:]
        package = place[0] if len(place) > 1 else ""
        if not package and path not in ("harness/__init__.py", "harness/cli.py") and Path(path).stem not in FOR_ALL:
            faults.append(f"{path}: in no package")
        if package and package not in PACKAGES:
            faults.append(f"{path}: a package that harness.PACKAGES does not know")
        allowed = {package, *PACKAGES.get(package, ()), *FOR_ALL}
        if path == "harness/cli.py":
            allowed |= set(PACKAGES)
        for line, name in imported(tree):
            of, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if of == "harness" and other and other not in allowed and other != "PACKAGES":
                faults.append(f"{path}:{line}: imports {name}")
    return faults


def packages_that_are_told_otherwise(root: Path) -> list[str]:
    """Packages whose docstring and whose row in the README's table of rooms do not say the same."""
    readme = (root / "README.md").read_text()
    faults = []
    for package in PACKAGES:
        said = ast.get_docstring(ast.parse((root / f"harness/{package}/__init__.py").read_text())) or ""
        if f"| `harness/{package}` | {said[:1].lower()}{said[1:].removesuffix('.')} |" not in readme:
            faults.append(f"harness/{package}: {said!r} is not in the README")
    return faults


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """As `imports`, with the modules that are taken from a package: `from harness.setup import cache` names two."""
    yield from imports(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def imports_that_point_outward(root: Path) -> list[str]:
    faults = []
    for room, allowed in MAY_KNOW.items():
        only = ONLY.get(room)
        for path, tree in python_files(root, room):
            for line, name in imports(tree):
                package = name.partition(".")[0]
                known = only is None or package in only | sys.stdlib_module_names | packages_around(root / path)
                if package in ROOMS - allowed or name.startswith(".") or not known:
                    faults.append(f"{path}:{line}: imports {name}")
    return faults


def packages_around(path: Path) -> set[str]:
    """The package that a file is in, which may know itself."""
    return {folder.name for folder in path.parents if (folder / "__init__.py").is_file()}


def imports_beside_the_seams(root: Path) -> list[str]:
    """Packages that speak to the outside world, imported elsewhere than in their seam."""
    faults = []
    for path, tree in python_files(root, "harness", "steps", "features", "bin", "conftest.py"):
        for line, name in imports(tree):
            allowed = SEAMS.get(name.partition(".")[0])
            if allowed is None or (name == "subprocess" and _starts_nothing(tree)):
                continue
            if not any(path == it or (it.endswith("/") and path.startswith(it)) for it in allowed):
                faults.append(f"{path}:{line}: imports {name}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and re.fullmatch(
                r"os\.(system|popen|spawn\w+|posix_spawn\w*)", ast.unparse(node)
            ):
                faults.append(f"{path}:{node.lineno}: {ast.unparse(node)} beside harness/seams/process.py")
    return faults


def _starts_nothing(tree: ast.Module) -> bool:
    """Whether a module knows of subprocess its errors only."""
    taken = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    taken = [name for name in taken if name.startswith("subprocess.")]
    return bool(taken) and all(name in ("subprocess.SubprocessError", "subprocess.TimeoutExpired") for name in taken)


# what waits: for a probe, and for the next look at the whole cluster
WAITS = {"harness/seams/wait.py", "harness/runs/watch.py"}


def sleeps_outside_the_wait(root: Path) -> list[str]:
    faults = []
    for path, tree in python_files(root, "harness", "steps", "features", "bin", "conftest.py"):
        for node in ast.walk(tree):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            imported = isinstance(node, ast.ImportFrom) and any(alias.name == "sleep" for alias in node.names)
            if path not in WAITS and (called.rpartition(".")[2] == "sleep" or imported):
                faults.append(f"{path}:{node.lineno}: sleeps")  # type: ignore[attr-defined]
    return faults


# where nobody reads yet, or what is only a lock or a log
WRITE_IN_PLACE = {
    "harness/setup/toolchain.py",  # entries of the cache, which appear by a rename
    "harness/setup/packages.py",
    "harness/setup/limits.py",  # the file is the lock of all users, and what is cut in it is passed over
    "harness/commands/try_system.py",  # a system that nobody is in yet
    "harness/commands/bench_facts.py",  # a copy
}


def files_written_in_place(root: Path) -> list[str]:
    """Who is killed meanwhile leaves a cut file, which the next command stumbles over: `files.put` replaces it."""
    return [
        f"{path}:{node.lineno}: writes in place"
        for path, tree in python_files(root, "harness", "steps", "conftest.py")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("write_text", "write_bytes") and path not in WRITE_IN_PLACE
    ]


def sessions_that_trust_the_environment(root: Path) -> list[str]:
    """A proxy of the person's environment must not answer for the platform."""
    faults = []
    for path, tree in python_files(root, "harness", "steps", "bin", "conftest.py"):
        text = ast.unparse(tree)
        makes = re.search(r"requests\.Session\(\)|class \w+\(requests\.Session\)", text)
        if makes and "trust_env = False" not in text:
            faults.append(f"{path}: a requests session with trust_env on")
        faults += [
            f"{path}: {call}..." for call in re.findall(r"requests\.(?:get|put|post|delete|head|request)\(", text)
        ]
    return faults


# == what no file may hold ===========================================================================================

WEAKENED = re.compile(
    r"verify\s*=\s*False|StrictHostKeyChecking[\s=]+\"?(?:no|off|accept-new)|AutoAddPolicy|WarningPolicy|IgnorePolicy"
    r"|STRICT_HOST_KEY_CHECKING\"?[\s=:]+\"?(?:false|0)|strict-host-key-checking=(?:false|0)|UserKnownHostsFile[\s=]+/dev/null"
    r"|curl\b.*\s(?:--insecure|-k)\s|disable_warnings",
    re.IGNORECASE,
)
DOWNLOADS = re.compile(
    r"https?://[\w.-]*(?:pypi|pythonhosted|golang|npmjs|hashicorp)[\w.-]*/[\w.-]*(?:simple|packages|@v|dist|releases)?"
    r"|(?:index[-_]url|find[-_]links|trusted[-_]host|GOPROXY)\b[\s=:\"']+(?:https?:|[\w.-]+\.\w+)"
    r"|^(?:deb|deb-src)\s+(?:\[.*\]\s+)?https?://",
    re.IGNORECASE | re.MULTILINE,
)


def checks_that_are_weakened(root: Path) -> list[str]:
    return _found(texts(root), WEAKENED)


def addresses_of_package_registries(root: Path) -> list[str]:
    """Where packages come from is the machine's own configuration; locks hold versions and hashes only."""
    locks = [(path, text) for path, text in texts(root) if path.startswith("requirements/") and path.endswith(".txt")]
    return _found(texts(root), DOWNLOADS) + _found(locks, re.compile(r"https?://|^--(?!hash)|@ file:", re.MULTILINE))


def _found(files: Iterable[tuple[str, str]], pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{text.count(chr(10), 0, found.start()) + 1}: {found[0].strip()}"
        for path, text in files
        for found in pattern.finditer(text)
    ]


# == unit files ======================================================================================================

EXECUTED = ("ExecStartPre", "ExecStart", "ExecStartPost", "ExecStop", "ExecStopPost", "ExecReload")
# the machine's own services, which units may wait for
OF_THE_MACHINE = {"docker.service", "etcd.service"}
# options of [Unit] that name other units; systemd passes over a name that it does not know
OTHERS = ("Wants", "Requires", "BindsTo", "PartOf", "After", "Before")
# The helper file that takes an image from the registry
FETCH = "image/fetch.sh"
IMAGE = re.compile(r"(?:\$\{IMAGE_REGISTRY\}/)?[a-z0-9._/-]+(?::(?P<tag>[\w.-]+)|@sha256:[0-9a-f]{64})")


def unit_files_that_fleet_takes_amiss(root: Path) -> list[str]:
    paths = sorted((root / "units").glob("**/*.service"))
    if not paths:
        return ["there are no unit files"]
    try:
        units = read_units(*sorted({path.parent for path in paths}))
    except Misconfigured as refused:
        return [str(refused)]
    names = {unit.name for unit in units}
    faults = []
    for path in paths:
        unit = next(unit for unit in units if unit.name == path.name)
        faults += [f"{path.relative_to(root)}: {fault}" for fault in _faults_of_unit(unit, names, root)]
        faults += [remark.of(path.relative_to(root)) for remark in lint(path.name, path.read_bytes())]
    return faults


def _faults_of_unit(unit: UnitFile, names: set[str], root: Path) -> Iterator[str]:
    fleet: dict[str, list[str]] = {}
    service: dict[str, list[str]] = {}
    of_unit: dict[str, list[str]] = {}
    for section, name, value in unit.options:
        table = {"X-Fleet": fleet, "Service": service, "Unit": of_unit}.get(section, {})
        table.setdefault(name, []).append(value)
    for value in fleet.get("MachineOf", []):
        if _template(value, unit) not in names:
            yield f"MachineOf={value} names no unit of ours"
    for value in fleet.get("Conflicts", []):
        for pattern in value.split():
            if not any(matches(_template(pattern, unit), name) for name in names):
                yield f"Conflicts={pattern} matches no unit of ours"
    for name in OTHERS:
        for word in " ".join(of_unit.get(name, [])).split():
            if word.endswith(".service") and _template(word, unit) not in names | OF_THE_MACHINE:
                yield f"{name}={word} names no unit of ours"
    if service.get("RestartSec") != ["3"]:
        yield f"RestartSec is {service.get('RestartSec', ['not set'])[-1]}, not 3"
    if service.get("Restart") != ["always"]:
        yield f"Restart is {service.get('Restart', ['not set'])[-1]}, not always"
    yield from _faults_of_helpers(service, root)
    yield from _faults_of_images(service, root)


def _template(name: str, unit: UnitFile) -> str:
    """The file that holds an instance: blog@.service of blog@2.service, or of blog@%i.service where that stands for
    something. Globs stay as they are."""
    if "%i" in name and "@" not in unit.name:
        return name
    return re.sub(r"@(?:%i|\d+)\.service$", "@.service", name)


def _faults_of_helpers(service: dict[str, list[str]], root: Path) -> Iterator[str]:
    for command in (value for name in EXECUTED for value in service.get(name, [])):
        if (helper := _helper(command)) and not os.access(root / "container" / helper, os.X_OK):
            yield f"runs {helper}, which is no program in container"


def _helper(command: str) -> str:
    """The helper file that a command runs: its path in container; "" for another program."""
    found = re.match(r"[-@:+!]*/home/core/(\S+)", command)
    return found[1] if found else ""


def _faults_of_images(service: dict[str, list[str]], root: Path) -> Iterator[str]:
    variables = dict(
        pair.split("=", 1) for value in service.get("Environment", []) for pair in value.split() if "=" in pair
    )
    wanted: dict[str, str] = {}
    for name in ("ExecStartPre", "ExecStart"):
        for command in service.get(name, []):
            words = re.sub(r"\$\{(\w+)\}", lambda it: variables.get(it[1], it[0]), command).replace("\\\n", " ").split()
            verb = "fetch" if _helper(command) == FETCH else " ".join(words[1:2]) if "docker" in words[0] else ""
            if verb in ("fetch", "run"):
                wanted[verb] = next((word for word in words[2:] if word.startswith("${IMAGE_REGISTRY}/")), words[-1])
    if "run" not in wanted and not any(map(_helper, service.get("ExecStart", []))):
        yield "runs no image"
    for verb, image in wanted.items():
        found = IMAGE.fullmatch(image)
        if not found or found["tag"] == "latest":
            yield f"{verb}: image {image} is not pinned"
        elif image.startswith("${IMAGE_REGISTRY}/"):
            own = root / "units/images" / image.split("/", 1)[1].split(":")[0].split("@")[0]
            if not own.is_dir():
                yield f"{verb}: image {image} has no folder in units/images"
            elif not (own / "build-base").is_file():
                yield f"{verb}: image {image} has no build-base in its folder"
    if "run" in wanted and wanted.get("fetch") != wanted["run"]:
        yield f"fetches {wanted.get('fetch', 'nothing')} and runs {wanted['run']}"


def containers_that_are_not_named_after_their_units(root: Path) -> list[str]:
    """What is removed, run and stopped is the unit's own container: `blog` of blog.service, `blog-%i` of blog@.service.
    Two instances with one name would remove each other's."""
    faults = []
    for path in sorted((root / "units").glob("**/*.service")):
        own = path.name.removesuffix(".service").replace("@", "-%i")
        for section, option, value in UnitFile.read(path).options:
            words = value.replace("\\\n", " ").split()
            if section != "Service" or option not in EXECUTED or not re.match(r"[-@:+!]*/usr/bin/docker$", words[0]):
                continue
            named = words[words.index("--name") + 1 :][:1] if "--name" in words else []
            named += words[-1:] if words[1] in ("rm", "stop") else []
            faults += [
                f"{path.relative_to(root)}: docker {words[1]} of {name}, not {own}" for name in named if name != own
            ]
    return faults


def templates_that_differ_from_their_units(root: Path) -> list[str]:
    """A template in units/more is the unit of its name in another folder, but for the instance, where fleet puts it,
    and how it is described."""
    faults = []
    for path in sorted((root / "units").glob("**/*.service")):
        template, here = "@" in path.name, path.relative_to(root)
        if template != (path.parent == root / "units/more"):
            faults.append(f"{here}: {'a template' if template else 'no template'}, and not in its folder")
        if not template:
            continue
        others = [it for it in (root / "units").glob(f"**/{path.name.replace('@', '')}") if it.parent != path.parent]
        for other in others:
            mine, its = _without_instance(path.read_text()), _without_instance(other.read_text())
            differ = [(a, b) for a, b in itertools.zip_longest(mine, its, fillvalue="nothing") if a != b][:1]
            faults += [f"{here}: `{a.strip()}`, where {other.name} has `{b.strip()}`" for a, b in differ]
        if not others:
            faults.append(f"{here}: a template of no unit")
        if "%i" not in path.read_text():
            faults.append(f"{here}: every instance would be the same")
        follows = [value for it in others for _, name, value in UnitFile.read(it).options if name == "MachineOf"]
        follows = [value.replace(".service", "@%i.service") for value in follows]
        if [value for _, name, value in UnitFile.read(path).options if name == "MachineOf"] != follows:
            faults.append(f"{here}: MachineOf is not {', '.join(follows) or 'left out'}")
    return faults


def _without_instance(text: str) -> list[str]:
    """The lines of a unit file, but its [X-Fleet] section and its description."""
    text = re.sub(r"(?ms)^\[X-Fleet\]$.*?(?=^\[|\Z)", "", text)
    return re.sub(r"[@-]%i", "", re.sub(r"(?m)^Description=.*$", "Description=", text)).rstrip().splitlines()


def verified_by_systemd(units: Iterable[Path], scratch: Path) -> str:
    """What `systemd-analyze verify` says of these units, of a template as an instance; its exit status is 0 for most of
    what it finds.

    Programs that are not on this machine are another's concern: each command is replaced by one that is.
    """
    program = os.environ.get("PLATFORM_SYSTEMD_ANALYZE") or shutil.which("systemd-analyze")
    if not program:
        pytest.skip("systemd-analyze is not here: neither PLATFORM_SYSTEMD_ANALYZE nor PATH names it")
    if os.geteuid() != 0 and not Path("/run/systemd").is_dir():
        pytest.skip("systemd-analyze wants /run/systemd: systemd did not boot this machine, and only root can make it")
    copies = []
    for unit in units:
        text = re.sub(r"(?m)^(Exec\w+=[-@:+!]*)/\S+", r"\1/bin/true", unit.read_text())
        (scratch / unit.name).write_text(text)
        copies.append(scratch / unit.name.replace("@.", "@2."))
        copies[-1].write_text(text)
    for beside in ("docker.service", "etcd.service"):
        (scratch / beside).write_text("[Service]\nExecStart=/bin/true\n")
    # its own path alone: the units of this machine are not what is asked about
    variables = {**os.environ, "SYSTEMD_UNIT_PATH": f"{scratch}:"}
    command = [program, "verify", "--man=no", *map(str, copies)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).strip()
    return said or ("" if done.returncode == 0 else f"systemd-analyze ended with {done.returncode}")


# == this checkout ===================================================================================================

GUARDS: list[Guard] = [
    phrases_defined_twice,
    phrases_not_used,
    steps_not_resolved,
    fixtures_that_nobody_makes,
    step_modules_not_loaded,
    titles_not_unique,
    features_not_formatted,
    features_not_bound,
    tags_not_declared,
    needs_that_are_wrong,
    subjects_that_are_wrong,
    mutating_tags_that_are_wrong,
    features_that_know_too_much,
    imports_that_point_outward,
    imports_that_go_in_a_circle,
    imports_that_packages_may_not,
    packages_that_are_told_otherwise,
    imports_beside_the_seams,
    sleeps_outside_the_wait,
    files_written_in_place,
    sessions_that_trust_the_environment,
    checks_that_are_weakened,
    addresses_of_package_registries,
    unit_files_that_fleet_takes_amiss,
    containers_that_are_not_named_after_their_units,
    templates_that_differ_from_their_units,
]


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
def test_this_checkout_has_none_of(guard: Guard) -> None:
    assert guard(ROOT) == []


def test_there_is_something_to_guard() -> None:
    """The positive control: a guard that reads nothing finds no fault either."""
    assert len(definitions(ROOT)) > 20 and len(scenarios_of(ROOT)) > 20
    assert len(list(python_files(ROOT, "harness", "steps"))) > 30
    assert "bin/platform" in dict(python_files(ROOT, "bin"))
    assert {"README.md", "infra/first-boot", ".ci/run"} <= {path for path, _ in texts(ROOT)}


def test_units_are_clean_by_systemd(tmp_path: Path) -> None:
    assert verified_by_systemd(sorted((ROOT / "units").glob("**/*.service")), tmp_path) == ""


def test_units_of_the_machine_are_clean_by_systemd(tmp_path: Path) -> None:
    folder = ROOT / "infra/image/files/etc/systemd/system"

    assert verified_by_systemd([*folder.glob("*.service"), *folder.glob("*.socket")], tmp_path) == ""


# == trees that are broken on purpose ================================================================================

STEPS = """
from pytest_bdd import given, parsers, then, when

@given("a cluster")
@then("a cluster")
def cluster(): ...

@when(parsers.parse("the operator runs `{line}`"))
def run(line): ...

@then(parsers.parse("{count:d} machines are listed"))
def listed(count): ...
"""
FEATURE = """@load
Feature: 1. Load
  As the README says.

  @mutates
  Scenario: Loading
    Given a cluster
    When the operator runs `fleetctl load units/*.service`
    Then 3 machines are listed

  @requires_state
  Scenario: Loaded
    Then a cluster
"""
SITE = FEATURE.replace("@load", "@site").replace("1. Load", "2. Site").replace("Load", "Serv")
UNIT = r"""[Unit]
Description=Web server

[Service]
Environment=IMAGE=web:1
ExecStartPre=/home/core/image/fetch.sh ${IMAGE_REGISTRY}/${IMAGE}
ExecStart=/usr/bin/docker run --rm \
    --publish 80:80 \
    --name web \
    ${IMAGE_REGISTRY}/${IMAGE}
Restart=always
RestartSec=3

[X-Fleet]
MachineMetadata=name=coreos-0
"""
X_FLEET = "[X-Fleet]\nMachineMetadata=name=coreos-0\n"
TEMPLATE = UNIT.replace("--name web", "--name web-%i").replace("Web server", "Another web server")
TEMPLATE = TEMPLATE.replace(X_FLEET, "[X-Fleet]\nConflicts=web.service\nConflicts=web@*.service\n")
TREE = {
    "steps/cluster.py": STEPS,
    "conftest.py": 'import pytest\n\npytest_plugins = ["steps.cluster"]\n',
    CHOOSING: 'NEEDS = "requires_state"\n',
    "features/01_load.feature": FEATURE,
    "features/02_site.feature": SITE,
    "features/test_runbook.py": (ROOT / "features/test_runbook.py").read_text(),
    "pyproject.toml": "[tool.pytest.ini_options]\n"
    'markers = ["mutates: changes", "slow: m", "requires_state: all", "load: 1", "site: 2"]\n',
    "harness/drivers/driver.py": "import json\nfrom harness.seams.process import run\n",
    "harness/seams/errors.py": "import subprocess\n\nERRORS = (OSError, subprocess.SubprocessError)\n",
    **{f"harness/{package}/__init__.py": f'"""What {package} holds."""\n' for package in PACKAGES},
    "README.md": "\n".join(f"| `harness/{package}` | what {package} holds |" for package in PACKAGES),
    "harness/seams/process.py": "import subprocess\n",
    "harness/seams/http.py": "import requests\n\nsession = requests.Session()\nsession.trust_env = False\n",
    "container/image/fetch.sh": "#!/bin/sh\n",
    "units/web.service": UNIT,
    "units/more/web@.service": TEMPLATE,
    "units/images/web/build-base": "#!/bin/sh\n",
    "infra/first-boot": "#!/bin/sh\ncurl --fail http://127.0.0.1:2379/health\n",
    "requirements/runtime.txt": "paramiko==5.1.0 \\\n    --hash=sha256:00\n",
}

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Writes the small tree; `changed` gives other texts to some of its files, or adds files."""

    def write(changed: dict[str, str] | None = None) -> Path:
        for name, text in {**TREE, **(changed or {})}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "container" / FETCH).chmod(0o755)
        return tmp_path

    return write


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
def test_small_tree_has_none_of(tree: Tree, guard: Guard) -> None:
    assert guard(tree()) == []


AGAIN = '\n@then("a cluster")\ndef again(): ...\n'
IN_SECOND = "from pytest_bdd import then\n" + AGAIN


LOAD, BINDER, ROOT_CONFTEST = "features/01_load.feature", "features/test_runbook.py", "conftest.py"
OTHER, DRIVER, LOCK, BOOT = (
    "steps/other.py",
    "harness/drivers/driver.py",
    "requirements/runtime.txt",
    "infra/first-boot",
)
PROJECT, MARKERS = "pyproject.toml", TREE["pyproject.toml"]
BIND = "from pytest_bdd import scenarios\n"
AMBIGUOUS = STEPS.replace("{count:d} machines", "{count} {what}")
AMBIGUOUS += '\n@then(parsers.parse("{count:d} machines are listed"))\ndef more(count): ...\n'


@pytest.mark.parametrize(
    ("guard", "file", "text", "fault"),
    [
        (phrases_defined_twice, "steps/cluster.py", STEPS + AGAIN, "'a cluster' is defined by .*cluster.again"),
        (phrases_defined_twice, OTHER, IN_SECOND, "defined by .*other.again"),
        (phrases_not_used, OTHER, IN_SECOND.replace("a cluster", "no cluster"), "other.again: no feature says then"),
        (steps_not_resolved, LOAD, FEATURE.replace("3 m", "some m"), "01_load.feature:9: .*not defined"),
        (steps_not_resolved, LOAD, FEATURE.replace("Given a", "When a"), ":7: When a cluster: not defined"),
        (steps_not_resolved, "steps/cluster.py", AMBIGUOUS, ":9: Then 3 machines are listed: .* and "),
        (step_modules_not_loaded, OTHER, IN_SECOND, "steps.other: not in pytest_plugins"),
        (step_modules_not_loaded, ROOT_CONFTEST, 'pytest_plugins = ["steps.gone"]\n', "steps.gone: a plugin that"),
        (step_modules_not_loaded, ROOT_CONFTEST, "pytest_plugins = []\n", "steps.cluster: not in pytest_plugins"),
        (titles_not_unique, LOAD, FEATURE.replace("Loaded", "Loading"), "2 scenarios are called 'Loading'"),
        (features_not_bound, LOAD, FEATURE.replace("Loaded", "Loading"), "1 of 2 scenarios are bound"),
        (features_not_bound, BINDER, "", "02_site.feature: 0 of 2 scenarios are bound"),
        (features_not_bound, BINDER, BIND + 'scenarios("01_load.feature")\n', "02_site.feature: 0 of 2"),
        (
            fixtures_that_nobody_makes,
            "steps/cluster.py",
            STEPS.replace("run(l", "run(folder, l"),
            "py:9: .* fixture folder",
        ),
        (
            fixtures_that_nobody_makes,
            "conftest.py",
            "import pytest\n\n@pytest.fixture\ndef place(folder): ...\n",
            "conftest.py:4: nobody makes the fixture folder",
        ),
        (features_not_bound, "features/deep/03_more.feature", FEATURE, "03_more.feature: 0 of 2"),
        (
            features_not_bound,
            BINDER,
            BIND + 'scenarios("02_site.feature")\nscenarios("01_load.feature")\n',
            r"bound in the order \['02_site.feature', '01_load.feature'\]",
        ),
        (tags_not_declared, LOAD, FEATURE.replace("@mutates", "@mutate"), "tag @mutate is not declared"),
        (tags_not_declared, LOAD, FEATURE.replace("@load", "@lode"), "tag @lode is not declared"),
        (tags_not_declared, LOAD, FEATURE.replace("requires_", "needs_"), "tag @needs_state is not declared"),
        (needs_that_are_wrong, PROJECT, MARKERS.replace("slow", "requires_net"), "@requires_net is declared, and noth"),
        (
            needs_that_are_wrong,
            PROJECT,
            MARKERS.replace("slow", "requires_net"),
            "@requires_net: .*choosing.py does not",
        ),
        (needs_that_are_wrong, LOAD, FEATURE + "    And one is switched on again\n", "'Loaded' lacks @requires_power"),
        (needs_that_are_wrong, CHOOSING, "NEEDS = 'requires_'\n", "@requires_state: .*choosing.py does not look"),
        (subjects_that_are_wrong, LOAD, FEATURE.replace("@load", ""), r"subject tags are \[\], not @load"),
        (subjects_that_are_wrong, LOAD, FEATURE.replace("@load", "@load @site"), r"\['load', 'site'\]"),
        (subjects_that_are_wrong, LOAD, FEATURE.replace("@mutates", "@load"), "has a subject tag"),
        (subjects_that_are_wrong, LOAD, FEATURE.replace("@load", "@site"), "no feature is about @load"),
        (mutating_tags_that_are_wrong, LOAD, FEATURE.replace("@mutates", ""), "'Loading' lacks @mutates"),
        (mutating_tags_that_are_wrong, LOAD, FEATURE.replace("@load", "@load @mutates"), "'Loaded' types no command"),
        (features_that_know_too_much, LOAD, FEATURE + "    And 10.0.0.1 answers\n", ":14: names an address"),
        (features_that_know_too_much, LOAD, FEATURE + '    And "http://a.b" answers\n', "names an address"),
        (features_that_know_too_much, LOAD, FEATURE + "    And localhost answers\n", "names an address"),
        (features_that_know_too_much, LOAD, FEATURE + "    And etcd:2379 answers\n", "names a port"),
        (features_that_know_too_much, LOAD, FEATURE + '    And "/etc/hosts" is\n', "names an absolute path"),
        (features_that_know_too_much, LOAD, FEATURE + "    And /home/corex is\n", "names an absolute path"),
        (
            imports_that_point_outward,
            DRIVER,
            "import steps.cluster\n",
            "harness/drivers/driver.py:1: imports steps.cluster",
        ),
        (imports_that_point_outward, DRIVER, "def f():\n    from conftest import x\n", "driver.py:2: imports conftest"),
        (imports_that_point_outward, DRIVER, "from . import errors\n", "driver.py:1: imports ."),
        (imports_that_point_outward, DRIVER, "importlib.import_module('steps.x')\n", "driver.py:1: imports steps.x"),
        (imports_that_point_outward, OTHER, "import requests\n", "steps/other.py:1: imports requests"),
        (imports_that_point_outward, OTHER, "from tests.fakes import FakeRunner\n", "other.py:1: imports tests.fakes"),
        (
            imports_that_point_outward,
            "infra/tool",
            "#!/usr/bin/env python3\nimport harness\n",
            "tool:2: imports harness",
        ),
        (imports_that_point_outward, "units/tool.py", "import jmespath\n", "units/tool.py:1: imports jmespath"),
        (imports_that_point_outward, "units/images/web/web/a.py", "import web.b\n", "a.py:1: imports web.b"),
        (
            imports_that_go_in_a_circle,
            "harness/seams/process.py",
            "from harness.drivers import driver\n",
            "harness.drivers.driver imports harness.seams.process imports harness.drivers.driver|"
            "harness.seams.process imports harness.drivers.driver imports harness.seams.process",
        ),
        (
            imports_that_go_in_a_circle,
            DRIVER,
            "def f():\n    import harness.drivers.driver\n",
            "harness.drivers.driver imports harness.d",
        ),
        (features_not_formatted, LOAD, FEATURE.replace("    Given", "   Given"), "feature:7: indented by 3, not 4"),
        (features_not_formatted, LOAD, FEATURE.replace("a cluster\n", "a cluster \n"), "feature:7: a blank at its end"),
        (
            features_not_formatted,
            LOAD,
            FEATURE.replace("\n\n  @req", "\n  @req"),
            "feature:10: no empty line before it",
        ),
        (imports_that_packages_may_not, "harness/driver.py", "x = 1\n", "harness/driver.py: in no package"),
        (imports_that_packages_may_not, "harness/misc/a.py", "x = 1\n", "misc/a.py: a package that harness.PACK"),
        (
            imports_that_packages_may_not,
            "harness/model/a.py",
            "def f():\n    from harness.seams import wait\n",
            "harness/model/a.py:2: imports harness.seams",
        ),
        (
            imports_that_packages_may_not,
            "harness/setup/a.py",
            "import harness.drivers.etcd\n",
            "harness/setup/a.py:1: imports harness.drivers.etcd",
        ),
        (
            packages_that_are_told_otherwise,
            "harness/model/__init__.py",
            '"""Odds and ends."""',
            "model: 'Odds and ends.'",
        ),
        (imports_beside_the_seams, DRIVER, "import pytest\n", "harness/drivers/driver.py:1: imports pytest"),
        (imports_beside_the_seams, DRIVER, "from subprocess import run\n", "driver.py:1: imports subprocess"),
        (imports_beside_the_seams, DRIVER, "import subprocess\n", "driver.py:1: imports subprocess"),
        (
            imports_beside_the_seams,
            DRIVER,
            "import subprocess\ntry:\n    subprocess.run('ls')\nexcept subprocess.SubprocessError: ...\n",
            "driver.py:1: imports subprocess",
        ),
        (imports_beside_the_seams, DRIVER, "import os\nos.system('true')\n", "driver.py:2: os.system beside"),
        (imports_beside_the_seams, OTHER, "import subprocess\n", "steps/other.py:1: imports subprocess"),
        (imports_beside_the_seams, ROOT_CONFTEST, "import paramiko\n", "conftest.py:1: imports paramiko"),
        (imports_beside_the_seams, "bin/tool", "#!/usr/bin/env python3\nimport subprocess\n", "tool:2: imports sub"),
        (sleeps_outside_the_wait, OTHER, "import time\ntime.sleep(1)\n", "steps/other.py:2: sleeps"),
        (sleeps_outside_the_wait, DRIVER, "from time import sleep as nap\n", "driver.py:1: sleeps"),
        (files_written_in_place, DRIVER, "Path('a').write_text('b')\n", "driver.py:1: writes in place"),
        (sessions_that_trust_the_environment, DRIVER, "requests.Session()\n", "driver.py: a requests session"),
        (sessions_that_trust_the_environment, DRIVER, "requests.get('http://a')\n", r"driver.py: requests.get\("),
        (checks_that_are_weakened, DRIVER, "\nget(url, verify=False)\n", "driver.py:2: verify=False"),
        (checks_that_are_weakened, DRIVER, "set_policy(paramiko.AutoAddPolicy())\n", "AutoAddPolicy"),
        (checks_that_are_weakened, DRIVER, "set_policy(paramiko.WarningPolicy())\n", "WarningPolicy"),
        (checks_that_are_weakened, "README.md", "ssh -o StrictHostKeyChecking=no core@x\n", "README.md:1: Strict"),
        (checks_that_are_weakened, "harness/ssh", "StrictHostKeyChecking no\n", "harness/ssh:1: Strict"),
        (checks_that_are_weakened, "README.md", "FLEETCTL_STRICT_HOST_KEY_CHECKING=false\n", "README.md:1: STRICT"),
        (checks_that_are_weakened, BOOT, "curl -k https://a/\n", "first-boot:1: curl -k"),
        (addresses_of_package_registries, LOCK, "--index-url https://a.example/simple\na==1\n", "runtime.txt:1: --"),
        (addresses_of_package_registries, LOCK, "a @ https://x/a.whl\n", "runtime.txt:1: https://"),
        (addresses_of_package_registries, BOOT, "GOPROXY=https://mirror.example go build\n", "first-boot:1: GOPROXY"),
        (
            addresses_of_package_registries,
            DRIVER,
            "URL = 'https://pypi.example/simple'\n",
            "driver.py:1: https://pypi.",
        ),
        (addresses_of_package_registries, "infra/list", "deb http://deb.example/debian stable main\n", "list:1: deb"),
    ],
)
def test_guard_notices(tree: Tree, guard: Guard, file: str, text: str, fault: str) -> None:
    faults = guard(tree({file: text}))

    assert any(re.search(fault, line) for line in faults), faults


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("MachineMetadata=", "MachineMetaData=", "fleet knows no MachineMetaData"),
        ("MachineMetadata=", "X-ConditionMachineMetadata=", "X-ConditionMachineMetadata is an old name"),
        ("name=coreos-0", "name=coreos-0 disk=ssd", "fleet ignores MachineMetadata 'name=coreos-0 disk=ssd'"),
        ("name=coreos-0", "name=a=b", "fleet ignores MachineMetadata 'name=a=b'"),
        ("name=coreos-0", "name=", "fleet ignores MachineMetadata 'name='"),
        ("name=coreos-0", "coreos-0", "fleet ignores MachineMetadata 'coreos-0'"),
        (X_FLEET, "[X-Fleet]\nGlobal=true\nMachineOf=web.service\n", "Global and MachineOf exclude each other"),
        (X_FLEET, f"[X-Fleet]\nMachineID={'a' * 32}\nConflicts=b*\n", "MachineID and Conflicts exclude each other"),
        (X_FLEET, "[X-Fleet]\nConflicts=b*\nReplaces=c.service\n", "Conflicts and Replaces exclude each other"),
        (X_FLEET, "[X-Fleet]\nGlobal=ja\n", "Global=ja is false for fleet: say true or false"),
        (X_FLEET, "[X-Fleet]\nMachineID=coreos-0\n", "MachineID coreos-0 is no machine's"),
        (X_FLEET, "[X-Fleet]\nMachineOf=ghost.service\n", "MachineOf=ghost.service names no unit of ours"),
        (X_FLEET, "[X-Fleet]\nMachineOf=web.service web.service\n", "names no unit of ours"),
        (X_FLEET, X_FLEET + "\n[Install]\nWantedBy=multi-user.target\n", r"\[Install\]: systemd could"),
        ("RestartSec=3", "RestartSec=1", "RestartSec is 1, not 3"),
        ("RestartSec=3\n", "", "RestartSec is not set, not 3"),
        ("Restart=always", "Restart=on-failure", "Restart is on-failure, not always"),
        ("IMAGE=web:1", "IMAGE=web:latest", r"image \$\{IMAGE_REGISTRY\}/web:latest is not pinned"),
        ("IMAGE=web:1", "IMAGE=web", "run: image .*/web is not pinned"),
        ("IMAGE=web:1", "OTHER=web:1", "is not pinned"),
        ("IMAGE=web:1", "IMAGE=shop:1", "has no folder in units/images"),
        ("fetch.sh ${IMAGE_REGISTRY}/${IMAGE}", "fetch.sh ${IMAGE_REGISTRY}/web:2", "fetches .*web:2 and runs .*web:1"),
        ("ExecStartPre=/home", "ExecStartPre=/root", "fetches nothing and runs .*web:1"),
        ("docker run", "docker start", "runs no image"),
        ("[Unit]\n", "[Unit]\n# remark \\\n", "web.service:3: fleet takes this line for a part of the comment above"),
        ("[Service]\n", "[Service]\nA=b \\ \n", "web.service:5: a blank behind the backslash"),
        ("--publish 80:80", "--publish 80:80 " + "a" * 2048, "web.service:8: fleet refuses it: line too long"),
        ("[Unit]\n", "[Unit]\njunk\n", "fleet refuses it: unexpected newline"),
    ],
)
def test_guard_of_units_notices(tree: Tree, old: str, new: str, fault: str) -> None:
    assert UNIT.count(old) == 1 or old == "IMAGE=web:1"
    faults = unit_files_that_fleet_takes_amiss(tree({"units/web.service": UNIT.replace(old, new)}))

    assert any(re.search(fault, line) for line in faults), faults


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (X_FLEET, ""),
        (X_FLEET, "[X-Fleet]\nGlobal=true\nMachineMetadata=disk=ssd\n"),
        (X_FLEET, '[X-Fleet]\nMachineMetadata="disk=ssd" "zone=a"\n'),
        (
            X_FLEET,
            "[X-Fleet]\nMachineMetadata=zone=a\nMachineMetadata=zone=b\nConflicts=shop@*.service other.service\n",
        ),
        ("IMAGE=web:1", f"IMAGE=web@sha256:{'0' * 64}"),
    ],
)
def test_guard_of_units_takes(tree: Tree, old: str, new: str) -> None:
    others = {"units/other.service": UNIT, "units/more/shop@.service": UNIT}

    assert unit_files_that_fleet_takes_amiss(tree({"units/web.service": UNIT.replace(old, new), **others})) == []


SIDEKICK = UNIT.replace("--name web", "--name reg").replace(X_FLEET, "[X-Fleet]\nMachineOf=web.service\n")
OF_SIDEKICK = SIDEKICK.replace("--name reg", "--name reg-%i").replace("web.service", "web@%i.service")
PART_OF = "[Unit]\nPartOf=web@%i.service\nAfter=web@%i.service docker.service\n"


def test_guard_of_units_takes_a_template_that_follows_another(tree: Tree) -> None:
    template = OF_SIDEKICK.replace("[Unit]\n", PART_OF)
    one = SIDEKICK.replace("[Unit]\n", PART_OF.replace("@%i", ""))
    root = tree({"units/reg.service": one, "units/more/reg@.service": template})

    assert unit_files_that_fleet_takes_amiss(root) == []
    assert containers_that_are_not_named_after_their_units(root) == []
    assert templates_that_differ_from_their_units(root) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("Conflicts=web.service", "Conflicts=wep.service", "Conflicts=wep.service matches no unit of ours"),
        ("Conflicts=web@*.service", "Conflicts=wep@*.service", "Conflicts=wep@.* matches no unit of ours"),
        ("Conflicts=web.service\n", "MachineOf=wep@%i.service\n", "MachineOf=wep@%i.service names no unit of ours"),
        ("[Unit]\n", "[Unit]\nPartOf=wep@%i.service\n", "PartOf=wep@%i.service names no unit of ours"),
        ("[Unit]\n", "[Unit]\nWants=web.service wep.service\n", "Wants=wep.service names no unit of ours"),
        ("[Unit]\n", "[Unit]\nAfter=web%i.service\n", "After=web%i.service names no unit of ours"),
        ("IMAGE=web:1", "IMAGE=web:latest", "is not pinned"),
        ("Restart=always", "Restart=no", "Restart is no, not always"),
    ],
)
def test_guard_of_units_notices_a_template(tree: Tree, old: str, new: str, fault: str) -> None:
    faults = unit_files_that_fleet_takes_amiss(tree({"units/more/web@.service": TEMPLATE.replace(old, new)}))

    assert any(line.startswith("units/more/web@.service: ") and re.search(fault, line) for line in faults), faults


def test_guard_of_units_notices_an_instance_in_a_unit_that_is_none(tree: Tree) -> None:
    unit = UNIT.replace("[Unit]\n", "[Unit]\nWants=web@%i.service\n")

    assert unit_files_that_fleet_takes_amiss(tree({"units/web.service": unit})) == [
        "units/web.service: Wants=web@%i.service names no unit of ours"
    ]


HELPER = "[Service]\nExecStart=/home/core/name/publish.sh --now\nRestart=always\nRestartSec=3\n"


def test_guard_of_units_takes_one_that_runs_a_helper(tree: Tree) -> None:
    root = tree({"units/name.service": HELPER, "container/name/publish.sh": "#!/bin/sh\n"})
    (root / "container/name/publish.sh").chmod(0o755)

    assert unit_files_that_fleet_takes_amiss(root) == []


@pytest.mark.parametrize(
    ("unit", "faults"),
    [
        (HELPER, ["runs name/publish.sh, which is no program in container"]),
        (HELPER.replace("publish.sh", "gone.sh"), ["runs name/gone.sh, which is no program in container"]),
        (HELPER.replace("/home/core/name/publish.sh", "/usr/bin/nginx"), ["runs no image"]),
        (
            HELPER.replace("ExecStart=", "ExecStartPre=-"),
            ["runs name/publish.sh, which is no program in container", "runs no image"],
        ),
    ],
)
def test_guard_of_units_notices_what_is_no_helper(tree: Tree, unit: str, faults: list[str]) -> None:
    root = tree({"units/name.service": unit, "container/name/publish.sh": "#!/bin/sh\n"})  # not executable

    assert unit_files_that_fleet_takes_amiss(root) == [f"units/name.service: {fault}" for fault in faults]


def test_guard_of_units_notices_an_image_that_is_not_built(tree: Tree) -> None:
    root = tree({"units/images/shop/README": "", "units/web.service": UNIT.replace("IMAGE=web:1", "IMAGE=shop:1")})

    assert any("shop:1 has no build-base in its folder" in line for line in unit_files_that_fleet_takes_amiss(root))


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("units/web.service", "--name web", "--name wep", "units/web.service: docker run of wep, not web"),
        (
            "units/web.service",
            "ExecStart=",
            "ExecStartPre=-/usr/bin/docker rm --force wep\nExecStart=",
            "units/web.service: docker rm of wep, not web",
        ),
        (
            "units/web.service",
            "Restart=always",
            "ExecStop=/usr/bin/docker stop --time 3 web-1\nRestart=always",
            "units/web.service: docker stop of web-1, not web",
        ),
        ("units/more/web@.service", "web-%i", "web", "units/more/web@.service: docker run of web, not web-%i"),
        ("units/more/web@.service", "web-%i", "web%i", "units/more/web@.service: docker run of web%i, not web-%i"),
    ],
)
def test_guard_of_containers_notices(tree: Tree, file: str, old: str, new: str, fault: str) -> None:
    text = TREE[file].replace(old, new)

    assert containers_that_are_not_named_after_their_units(tree({file: text})) == [fault]


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"units/more/web@.service": TEMPLATE.replace("80:80", "81:80")}, "`--publish 81:80 .`, where web.service has"),
        ({"units/web.service": UNIT.replace("[Unit]\n", "[Unit]\n# why\n")}, "`Description=`, where .* has `# why`"),
        ({"units/web.service": UNIT.replace("RestartSec=3", "RestartSec=3\nUser=core")}, "`.*`, where .* `User=core`"),
        ({"units/more/web@.service": TEMPLATE.replace("[Service]", "[Servise]")}, "`.Servise.`, where web.service has"),
        ({"units/more/web@.service": TEMPLATE.replace("-%i", "")}, "every instance would be the same"),
        ({"units/more/web@.service": OF_SIDEKICK}, "MachineOf is not left out"),
        ({"units/more/shop@.service": TEMPLATE}, "shop@.service: a template of no unit"),
        ({"units/app/web@.service": TEMPLATE}, "units/app/web@.service: a template, and not in its folder"),
        ({"units/more/shop.service": UNIT}, "units/more/shop.service: no template, and not in its folder"),
        (
            {"units/reg.service": SIDEKICK, "units/more/reg@.service": OF_SIDEKICK.replace("MachineOf", "Conflicts")},
            "reg@.service: MachineOf is not web@%i.service",
        ),
        (
            {"units/reg.service": SIDEKICK, "units/more/reg@.service": OF_SIDEKICK.replace("web@%i", "web")},
            "reg@.service: MachineOf is not web@%i.service",
        ),
    ],
)
def test_guard_of_templates_notices(tree: Tree, changed: dict[str, str], fault: str) -> None:
    faults = templates_that_differ_from_their_units(tree(changed))

    assert any(re.search(fault, line) for line in faults), faults


def test_guard_of_units_notices_that_there_are_none(tree: Tree) -> None:
    root = tree()
    for path in (root / "units").glob("**/*.service"):
        path.unlink()

    assert unit_files_that_fleet_takes_amiss(root) == ["there are no unit files"]


def test_guard_of_units_notices_one_name_in_two_folders(tree: Tree) -> None:
    (fault,) = unit_files_that_fleet_takes_amiss(tree({"units/app/web.service": UNIT}))

    assert "another folder holds a unit of this name" in fault


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Restart=always", "Restrt=always", "Restrt"),
        ("Restart=always", "Restart=allways", "allways"),
        ("RestartSec=3", "RestartSec=three", "three"),
        ("[Unit]\n", "[Unit]\nAfter=nowhere\n", "nowhere"),
        ("[Service]", "[Servise]", "Servise"),
    ],
)
def test_systemd_notices(tree: Tree, tmp_path: Path, old: str, new: str, said: str) -> None:
    root = tree({"units/web.service": UNIT.replace(old, new)})
    (tmp_path / "scratch").mkdir()

    assert said in verified_by_systemd([root / "units/web.service"], tmp_path / "scratch")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Restart=always", "Restart=allways", "allways"),
        ("[Unit]\n", "[Unit]\nAfter=nowhere\n", "nowhere"),
        ("[Unit]\n", "[Unit]\nPartOf=of-%i\n", "of-2"),
    ],
)
def test_systemd_notices_a_template_as_an_instance(tree: Tree, tmp_path: Path, old: str, new: str, said: str) -> None:
    root = tree({"units/more/web@.service": TEMPLATE.replace(old, new)})
    (tmp_path / "scratch").mkdir()

    assert said in verified_by_systemd([root / "units/more/web@.service"], tmp_path / "scratch")


def test_feature_may_name_what_the_readme_speaks_of(tree: Tree) -> None:
    text = (
        FEATURE + '    And "container" is under "/home/core", type "text/html" at ports 22 and 80 within 30 seconds\n'
    )

    assert features_that_know_too_much(tree({"features/01_load.feature": text})) == []


def test_package_of_an_image_may_know_itself_and_no_other(tree: Tree) -> None:
    folder = "units/images/web"
    files = {f"{folder}/web/__init__.py": "", f"{folder}/web/a.py": "from web import b\nimport json\n"}

    assert imports_that_point_outward(tree(files)) == []
    other = {f"{folder}/shop/__init__.py": "", f"{folder}/shop/a.py": "import web.a\nimport harness\n"}
    assert imports_that_point_outward(tree({**files, **other})) == [
        f"{folder}/shop/a.py:1: imports web.a",
        f"{folder}/shop/a.py:2: imports harness",
    ]


def test_outline_is_held_to_the_same_rules(tree: Tree) -> None:
    outline = FEATURE.replace("Scenario: Loaded", "Scenario Outline: Loaded").replace(
        "    Then a cluster\n",
        "    Then <count> machines are listed\n\n    Examples:\n      | count |\n      | 3     |\n      | many  |\n",
    )

    faults: list[Any] = steps_not_resolved(tree({"features/01_load.feature": outline}))

    assert len(faults) == 1 and "many machines are listed: not defined" in faults[0]
