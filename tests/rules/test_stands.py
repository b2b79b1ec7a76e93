"""What stands on what: for all that any case finds wrong, there is a ground below it, and no circle."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from harness import rules
from harness.rules.finding import Subject
from harness.rules.judging import judge
from harness.rules.machines import SYSTEM
from harness.rules.stands import Foundations
from harness.snapshot.data import Snapshot
from tests.rules.cases import CASES, ID, look
from tests.transcripts.snapshots import REMOVED, changed, green, silent

# Kinds that stand on nothing of the cluster
GROUND = {"backing service", "ssh-agent", "kernel log", "processors", "ports"}
LOOKS = [
    green(),
    silent(green(), "coreos-2"),
    silent(green(), *ID),
    changed(green(), {"fleet": None, "services": None}),
    changed(green(), {"fleet.units.blog.service": REMOVED, "services": {}}),
    *(look(changes) for cases in CASES.values() for changes, _ in cases),
]


@functools.cache
def found_in_each() -> list[frozenset[Subject]]:
    """The subjects of the findings of each look."""
    return [frozenset(finding.subject for finding in judge([green(), now]).all) for now in LOOKS]


def found() -> frozenset[Subject]:
    return frozenset().union(*found_in_each())


def kinds_in_rules() -> Iterator[str]:
    """The kinds that the rules' source names: Subject("kind", ...), at("kind", ...), and those of a machine's units."""
    yield from SYSTEM.values()
    for path in Path(rules.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Subject", "at") and node.args:
                kind = node.args[0]
                if isinstance(kind, ast.Constant):
                    yield str(kind.value)


def graph(now: Snapshot, subjects: frozenset[Subject]) -> dict[Subject, set[Subject]]:
    """What each of these stands on directly, and so on down."""
    foundations, edges, queue = Foundations(now), dict[Subject, set[Subject]](), list(subjects)
    while queue:
        subject = queue.pop()
        if subject not in edges:
            edges[subject] = set(foundations._directly(subject))
            queue.extend(edges[subject])
    return edges


def test_nothing_stands_on_itself() -> None:
    for now, subjects in zip(LOOKS, found_in_each(), strict=True):
        TopologicalSorter(graph(now, subjects)).prepare()  # raises CycleError


def test_every_kind_of_subject_is_found_in_some_case() -> None:
    assert {subject.kind for subject in found()} == set(kinds_in_rules())


def test_every_kind_of_subject_stands_on_something_or_is_the_ground() -> None:
    edges = graph(green(), found())

    assert {subject.kind for subject, below in edges.items() if not below} <= GROUND | {"unit", "etcd", "plan"}
    assert {subject.kind for subject, below in edges.items() if below} & GROUND == set()
    # etcd as a whole stands on its members only where half of them are ill; a global unit as such is its file, which
    # stands on nothing; each instance stands on its machine
    without_ground = {subject for subject, below in edges.items() if not below and subject.kind == "unit"}
    assert all(not subject.machine for subject in without_ground)


@pytest.mark.parametrize(
    ("subject", "below", "not_below"),
    [
        (
            Subject("site", "jpblog", "coreos-1"),
            [
                Subject("ambassador of", "jpblog", "coreos-1"),
                Subject("container", "jpblog-dynamic-amb", "coreos-1"),
                Subject("container", "entry", "coreos-1"),
                Subject("registration", "jpblog/coreos-0:jpblog"),
                Subject("unit", "jpblog.service", "coreos-0"),
                Subject("unit", "jpblog-docker-reg.service", "coreos-0"),
                Subject("unit", "etcd-amb.service", "coreos-0"),
                Subject("docker", "", "coreos-0"),
                Subject("helper files", "", "coreos-0"),
                Subject("contents of", "jpblog", "coreos-0"),
                Subject("machine", "", "coreos-0"),
                Subject("backing service", "image registry"),
            ],
            [
                Subject("site", "jpblog"),
                Subject("unit", "blog.service", "coreos-2"),
                Subject("container", "entry", "coreos-0"),
                Subject("ambassador of", "jpblog", "coreos-0"),
                Subject("docker", "", "coreos-2"),
                Subject("sshd", "", "coreos-0"),
                Subject("backing service", "name server"),
            ],
        ),
        (
            Subject("unit", "jpblog-docker-reg.service", "coreos-0"),
            [Subject("unit", "jpblog.service", "coreos-0"), Subject("unit", "jpblog.service")],
            [Subject("unit", "jpblog.service", "coreos-1"), Subject("container", "jpblog", "coreos-0")],
        ),
        (
            Subject("unit", "jpblog.service", "coreos-0"),
            [Subject("fleet", "", "coreos-0"), Subject("etcd", "", "coreos-0"), Subject("room", "/run", "coreos-0")],
            [Subject("unit", "jpblog-docker-reg.service", "coreos-0"), Subject("machine", "", "coreos-1")],
        ),
        (
            Subject("name", "genkisugimoto.com"),
            [Subject("backing service", "name server"), Subject("unit", "entry-name.service", "coreos-2")],
            [Subject("unit", "entry-name.service", "coreos-0"), Subject("machine", "", "coreos-0")],
        ),
        (
            Subject("entry point"),
            [
                Subject("entry point", "", "coreos-0"),
                Subject("container", "entry", "coreos-0"),
                Subject("machine", "", "coreos-0"),
            ],
            [Subject("machine", "", "coreos-1")],
        ),
        (
            Subject("system unit", "cron.service", "coreos-1"),
            [Subject("boot", "", "coreos-1"), Subject("machine", "", "coreos-1")],
            [Subject("machine", "", "coreos-0")],
        ),
    ],
    ids=lambda it: str(it) if isinstance(it, Subject) else "",
)
def test_what_a_subject_stands_on(subject: Subject, below: list[Subject], not_below: list[Subject]) -> None:
    foundations = Foundations(green()).below(subject)

    assert [str(it) for it in below if it not in foundations] == []
    assert [str(it) for it in not_below if it in foundations] == []


def test_a_unit_that_is_on_no_machine_may_be_on_any() -> None:
    unit = Subject("unit", "blog.service")
    nowhere = changed(green(), {"fleet.units.blog.service.machine_id": ""})

    def fleets(now: Snapshot) -> set[str]:
        return {it.machine for it in Foundations(now).below(unit) if it.kind == "fleet"}

    assert fleets(green()) == {"coreos-2"}
    assert fleets(nowhere) == fleets(changed(green(), {"fleet": None})) == set(ID)
    assert fleets(silent(green(), "coreos-2")) == {"coreos-2"}
    gone = changed(silent(green(), "coreos-1", "coreos-2"), {f"fleet.machines.{ID['coreos-2']}": REMOVED})
    assert fleets(gone) == {"coreos-1", "coreos-2"}


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        (Subject("machine", "", "coreos-1"), "machine coreos-1"),
        (Subject("etcd", "", "coreos-2"), "etcd on coreos-2"),
        (Subject("unit", "jpblog.service", "coreos-0"), "unit jpblog.service on coreos-0"),
        (Subject("site", "blog", "coreos-0"), "site blog through coreos-0"),
        (Subject("name", "example.com"), "name example.com"),
        (Subject("plan"), "plan"),
    ],
)
def test_a_subject_in_words(subject: Subject, shown: str) -> None:
    assert str(subject) == shown
