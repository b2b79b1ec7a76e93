"""The runbook as one page: the README's steps, each with the claims that hold it and their last evidence.

The page is Markdown, a pure function of README, features and the documents of runs; the HTML is rendered from that
Markdown. Of the record, what a command or a machine said stands in code blocks, and every other text is escaped:
nothing of it is read as Markdown or HTML.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness import files
from harness.record.log import SCHEMA, fold, lasted
from harness.reports import runbook
from harness.reports.claims import (
    CHANGED,
    COUNTED,
    ERROR,
    FAILED,
    NEVER,
    PROVEN,
    STATE_OF_OUTCOME,
    STATES,
    Book,
    Claim,
    Evidence,
    claims_of,
    evidence_of,
    last_typed,
)
from harness.reports.page_html import html, slug
from harness.reports.runbook import Block, Feature, Section
from harness.reports.verdict import judge, title
from harness.text import clean, cut, one_line, took, when

Item = dict[str, Any]

# What only those need who work on the harness: sections by their titles, and a table by its beginning.
LEFT_OUT = ("TODO", "Resources")
LEFT_OUT_TABLE = "| room |"

MARKS = {FAILED: "✗", ERROR: "✗", CHANGED: "!", NEVER: "○", PROVEN: "✓"}

# The run.json files that are read at most; what is shown of an answer (lines), of a line and of a text (characters).
MOST_RUNS = 2000
FIRST_LINES, LAST_LINES, SHOWN_OF_LINE, SHOWN_OF_TEXT, LONGEST_PASTE = 3, 9, 160, 600, 4_000
# The time at which a run began: the first of that name in its record, whose texts have no quote without a backslash;
# how many bytes are searched for it; and the seconds since the epoch that no clock shows yet
BEGAN, HEAD, LAST_TIME = re.compile(rb'"started": (?:null|([0-9]+(?:[.][0-9]+)?))'), 2**20, 2**34
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


# -- files -----------------------------------------------------------------------------------------------------------


def write_page(root: Path, out: Path | None = None) -> list[Path]:
    """Writes runbook.md and runbook.html of a checkout into a folder (default: .runs); gives their paths.

    Raises Misconfigured with what to do where README or features are missing or cannot be read, or the folder cannot
    be written to; EnvironmentFailed when the disk is full.
    """
    readme = files.read(root / "README.md", if_missing="it is the runbook, and without it there is no page")
    features = runbook.read_features(root / "features")
    records, folder = root / ".runs", out or root / ".runs"
    runs = _newest(records, features, runbook.commands_of_readme(readme))
    # a page outside of the checkout is for somebody who does not have the reports
    inside = folder.resolve().is_relative_to(root.resolve())
    reports = os.path.relpath(records.resolve(), folder.resolve()) if inside else None
    markdown = page(readme, features, runs, written=time.time(), reports=reports)
    pages = {folder / "runbook.md": markdown, folder / "runbook.html": html(markdown)}
    for path, text in pages.items():
        files.write(path, text)
    return list(pages)


def _newest(records: Path, features: Sequence[Feature], commands: Sequence[str]) -> list[Item]:
    """The documents of the newest run, and of those before it that are evidence of what no newer one is; what is no
    record of a run is passed over."""
    runs: list[Item] = []
    known, wanted = -1, len(commands) + sum(len(feature.scenarios) for feature in features)
    for path in sorted(records.glob("*/run.json"), key=_began, reverse=True)[:MOST_RUNS]:
        run = _document(path)
        if run is None:
            continue
        evidences = [evidence_of(feature, it, [*runs, run]) for feature in features for it in feature.scenarios]
        number = sum(
            it is not None for it in (*evidences, *(last_typed(command, [*runs, run]) for command in commands))
        )
        if number > known:
            known = number
            runs.append(run)
        if known == wanted:
            break
    return runs


def _began(path: Path) -> tuple[float, str]:
    """When a run began, by the head of its record. (Its id may be of another time zone, or of an hour that came twice.)
    What has no time is the oldest."""
    try:
        with path.open("rb") as record:
            found = BEGAN.search(record.read(HEAD))
    except OSError:
        found = None
    return float(found[1] or 0) if found else 0.0, path.parent.name


def _document(path: Path) -> Item | None:
    try:
        run = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(run, dict) or run.get("schema") != SCHEMA or not run.get("scenarios"):
        return None
    # in a folder of another name it is somebody's copy, and its place among the others is not known
    if run.get("run_id") != path.parent.name:
        return None
    # what older versions did not write down yet is as if it had not happened
    run = {**fold(()), **run}
    started = run["started"]
    return run if started is None or (isinstance(started, int | float) and 0 <= started < LAST_TIME) else None


# -- Markdown --------------------------------------------------------------------------------------------------------


def page(
    readme: str, features: Sequence[Feature], runs: Sequence[Item], *, written: float = 0.0, reports: str | None = None
) -> str:
    """The runbook with its evidence as Markdown, from the documents of runs, the newest first.

    `written` is the time in seconds since the epoch; `reports` is where the runs' folders are, seen from the page, for
    links to their reports. Raises Misconfigured for a README that is no runbook.
    """
    commands = runbook.commands_of_readme(readme)
    intro, *others = runbook.sections(readme)
    shown = tuple(section for section in others if section.title not in LEFT_OUT)
    claims = {feature: claims_of(feature, runs) for feature in features}
    book = Book(shown, tuple(commands), claims, runs, reports)
    parts = [
        f"# {intro.title or 'Platform'}: the runbook",
        *_head(book, written),
        *(block.text for block in intro.blocks),
        *_overview(book),
        *(part for section in shown for part in _section(section, book)),
        *_without_a_place(book),
        *_not_run(book),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(book: Book, written: float) -> list[str]:
    counts = Counter(claim.state for claim in book.every_claim())
    summary = ", ".join(f"{counts[it]} {it}" for it in COUNTED if counts[it] or it in (PROVEN, FAILED, NEVER))
    typed = sum(last_typed(command, book.runs) is not None for command in book.commands)
    return [
        f"{_worst(counts)} **{counts.total()} claims: {summary}.** "
        f"{typed} of {len(book.commands)} commands were typed.",
        f"Written {when(written)} from the README, the features and the record of the runs.",
    ]


def _worst(counts: Counter[str]) -> str:
    return MARKS[next((state for state in STATES if counts[state]), NEVER)]


def _overview(book: Book) -> list[str]:
    """Two tables: what is proven of each step, and by which runs."""
    rows = [(book.heading(it), book.about(it)) for it in book.places() if book.about(it) or isinstance(it, Block)]
    rows += [(feature.title, [feature]) for feature in book.without_a_place()]
    steps = ["| part of the runbook | claims | oldest evidence |", "| --- | --- | --- |"]
    for heading, features in rows:
        claims = [claim for feature in features for claim in book.claims[feature]]
        counts = Counter(claim.state for claim in claims)
        summary = ", ".join(f"{counts[it]} {it}" for it in STATES if counts[it]) or "no feature"
        times = [claim.evidence.started for claim in claims if claim.evidence and claim.evidence.started]
        oldest = when(min(times)) if times else "none"
        steps.append(f"| [{_text(heading)}](#{slug(heading)}) | {_worst(counts)} {summary} | {oldest} |")
    return ["## What is proven", "\n".join(steps), *_runs(book)]


def _runs(book: Book) -> list[str]:
    if not book.runs:
        return ["No run is on record: `make acceptance` makes one."]
    proves = Counter(claim.evidence.run["run_id"] for claim in book.every_claim() if claim.evidence)
    # the newest is shown even where it proves nothing: its verdict is news
    shown = [run for run in book.runs if run is book.runs[0] or proves[run["run_id"]]]
    rows = ["| run | started | target | verdict | claims |", "| --- | --- | --- | --- | --- |"]
    for run in shown:
        verdict = _text(cut(run["headline"] or title(run["status"]), SHOWN_OF_TEXT))
        about = f"{when(run['started'])} | {_text(run['target'] or 'not on record')} | {verdict}"
        rows.append(f"| {_report(run, book)} | {about} | {proves[run['run_id']]} |")
    others = len(book.runs) - len(shown)
    besides = f" {others} more were read, and say nothing newer." if others else ""
    return [f"The runs that say so, the newest first.{besides}", "\n".join(rows)]


def _section(section: Section, book: Book) -> list[str]:
    parts = [f"## {section.title}"]
    loose: list[str] = []
    for block in section.blocks:
        if block.number is not None:
            parts += _step(block, book)
        elif not block.text.startswith(LEFT_OUT_TABLE):
            parts.append(block.text)
            loose += block.commands
    if section.title in runbook.SECTIONS:
        parts += _commands(loose, book)
    return [*parts, *_what_must_hold(book.about(section), book)]


def _step(step: Block, book: Book) -> list[str]:
    heading = book.heading(step)
    held = _what_must_hold(book.about(step), book) or [f"{MARKS[NEVER]} No feature holds this step."]
    text = _without(step.text, heading.removeprefix(f"{step.number}. "))
    return [f"### {_text(heading)}", text, *_commands(step.commands, book), *held]


def _without(text: str, heading: str) -> str:
    """The text of a step without its first sentence, where the heading above it says the same."""
    rest = text.removeprefix(heading)
    if rest == text or not rest.startswith(("\n\n", ". ")):
        return "" if text == heading else text
    return rest.removeprefix(". ").lstrip("\n")


def _commands(commands: Sequence[str], book: Book) -> list[str]:
    """When each command was last typed, and what it answered."""
    return ["#### Last typed", *(_command(line, book) for line in commands)] if commands else []


def _command(line: str, book: Book) -> str:
    command = last_typed(line, book.runs)
    if command is None:
        return f"- {MARKS[NEVER]} {_code(line)} *never typed*"
    status = command.get("status")
    mark = MARKS[CHANGED if status is None else PROVEN if status == 0 else FAILED]
    ended = f"{took(command.get('seconds'))}, exit status {_text(status)}" if status is not None else "never ended"
    summary = f"- {mark} {_code(line)} *{when(command['started'])}, {ended}*"
    answer = _answer(command)
    return "\n".join([summary, "", *_fenced(answer, "  ")]) if answer else summary


def _answer(command: Item) -> str:
    streams = (clean(command.get(stream)).strip("\n") for stream in ("stdout", "stderr"))
    lines = "\n".join(stream for stream in streams if stream.strip()).split("\n")
    left_out = len(lines) - FIRST_LINES - LAST_LINES
    if left_out > 1:
        lines[FIRST_LINES:-LAST_LINES] = [f"[... {left_out} lines left out; run.json has them ...]"]
    return "\n".join(cut(line.rstrip(), SHOWN_OF_LINE) for line in lines)


def _what_must_hold(features: Sequence[Feature], book: Book) -> list[str]:
    parts = ["#### What must hold"] if features else []
    for feature in features:
        parts += [_paragraph(text) for text in feature.description.split("\n\n")]
        parts += [_claim(claim, book) for claim in book.claims[feature]]
    return parts


def _claim(claim: Claim, book: Book) -> str:
    lines = [f"- {MARKS[claim.state]} **{_text(claim.scenario.title)}**  ", f"  *{_said(claim, book)}*"]
    for step in claim.scenario.steps:
        lines.append(f"  - {_text(step.keyword)} {_sentence(step.text)}")
        lines += ["", *_fenced(step.block, "    ")] if step.block else []
    if claim.evidence and claim.state in (FAILED, ERROR):
        lines += _fault(claim.evidence)
    return "\n".join(lines)


def _said(claim: Claim, book: Book) -> str:
    """The last evidence of a claim in words."""
    evidence = claim.evidence
    if evidence is None:
        return f"never run: {_text(cut(claim.reason, SHOWN_OF_TEXT))}"
    seconds = lasted(evidence.scenario, evidence.run)
    words = STATE_OF_OUTCOME[evidence.scenario["outcome"]]
    words += f" {when(evidence.started)}" + (f" in {took(seconds)}" if seconds is not None else "")
    where = f"target {_text(evidence.run['target'] or 'not on record')}, run {_report(evidence.run, book)}"
    return f"{words}, {where}{'; the claim has changed since' if evidence.changed else ''}"


def _fault(evidence: Evidence) -> list[str]:
    """What went wrong, in the words of the verdict, as lines beneath a claim."""
    fault = next((it for it in judge(evidence.run).faults if it.scenario == evidence.scenario["id"]), None)
    if fault is None:
        return []
    rows = {"at": fault.line, "expected": fault.expected, "seen": fault.seen, "where": fault.where}
    rows |= {"message": fault.message} if fault.message != fault.seen and not fault.expected else {}
    lines = [f"{name:9} {cut(one_line(value), SHOWN_OF_TEXT)}" for name, value in rows.items() if value]
    shown = ["", *_fenced("\n".join(lines), "  ")]
    # a command that was cut would be another command
    if fault.paste and len(fault.paste) <= LONGEST_PASTE:
        shown += ["", "  Type this to see it again:", "", *_fenced(f"$ {clean(fault.paste).strip()}", "  ", "")]
    return shown


def _without_a_place(book: Book) -> list[str]:
    features = book.without_a_place()
    parts = ["## What the README does not tell", "No step and no section of the README has these features' titles."]
    for feature in features:
        parts += [f"### {_text(feature.title)}", *_what_must_hold([feature], book)]
    return parts if features else []


def _not_run(book: Book) -> list[str]:
    """What nothing is known of: claims, commands, and steps that no feature is about."""
    items = [
        f"- {MARKS[claim.state]} **{_text(claim.scenario.title)}** ({_text(feature.title)})  \n  *{_said(claim, book)}*"
        for feature, claims in book.claims.items()
        for claim in claims
        if claim.state in (NEVER, CHANGED)
    ]
    never = [command for command in book.commands if last_typed(command, book.runs) is None]
    items += [f"- {MARKS[NEVER]} {_code(command)} *never typed*" for command in never]
    steps = [place for place in book.places() if isinstance(place, Block) and not book.about(place)]
    items += [f"- {MARKS[NEVER]} **{_text(book.heading(it))}**  \n  *no feature holds this step*" for it in steps]
    nothing = f"{MARKS[PROVEN]} Every claim has evidence, and every command was typed."
    return ["## What was not run", *(items or [nothing])]


def _report(run: Item, book: Book) -> str:
    """The run's id, as a link to its report where there is one."""
    if book.reports is None:
        return _text(run["run_id"])
    path = os.path.normpath(f"{book.reports}/{clean(run['run_id'])}/report.html")
    return f"[{_text(run['run_id'])}]({quote(path)})"


def _text(value: object) -> str:
    """One line of text in which nothing is Markdown."""
    return _escaped(one_line(value))


def _escaped(line: str) -> str:
    return re.sub(r"[\\`*_\[\]<>&|~$#]", r"\\\g<0>", line)


def _paragraph(text: str) -> str:
    """The same at the beginning of a line, where a number or a dash would begin a list."""
    return re.sub(r"^(\d*)([.)+=-])", r"\1\\\2", _text(text))


def _sentence(text: str) -> str:
    """The text of a step, with its `commands` as code."""
    parts = one_line(text).split("`")
    if len(parts) % 2 == 0 or not all(parts[1::2]):  # backticks without a partner, or with nothing in between
        return _text(text)
    return "".join(_code(part) if at % 2 else _escaped(part) for at, part in enumerate(parts))


def _code(text: str) -> str:
    """A line of code, whatever backticks it holds."""
    line = clean(text).replace("\n", " ")
    around = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    blank = " " if line[:1] in ("`", " ") or line[-1:] in ("`", " ") else ""
    return f"{around}{blank}{line}{blank}{around}"


def _fenced(text: str, indent: str, language: str = "text") -> list[str]:
    """The lines of a code block that nothing in it can close."""
    code = clean(text).expandtabs()
    fence = "`" * max(3, max(map(len, re.findall("`+", code)), default=0) + 1)
    return [(indent + line).rstrip() for line in (fence + language, *code.split("\n"), fence)]
