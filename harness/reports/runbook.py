"""The runbook: what the README tells its reader to do, and what the features claim of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from gherkin.errors import CompositeParserException
from gherkin.parser import Parser
from gherkin.pickles.compiler import Compiler
from markdown_it import MarkdownIt
from markdown_it.token import Token

from harness import files
from harness.errors import Misconfigured

# Sections whose every command is executed by a scenario.
SECTIONS = ("Operation", "Prerequisites", "Changing services", "Changing machines", "Recovery",
            "Troubleshooting", "Known issues")  # fmt: skip
# An item of the section Troubleshooting: what one sees, the rules that say so, and what to do
REMEDY = re.compile(r"(\d+)\. +.*?\s\((`[a-z-]+`(?:,\s+`[a-z-]+`)*)\):\s(.*)", re.DOTALL)
TYPED = re.compile(r"(?:When|And|But|Given|Then|\*) the operator runs `([^`]+)`(?: within \d+ seconds)?\s*$")
NUMBERED = re.compile(r"(\d+)\. +(.+)")


# -- which commands are typed ----------------------------------------------------------------------------------------


def commands_of_readme(text: str) -> list[str]:
    """The commands of the runbook's sections, in order: the lines of code blocks that begin with `$ `.

    A line `$ # ...` is a remark to the reader. Raises Misconfigured for a code block that is never closed, and when
    there is no section Operation.
    """
    section, fence, commands = "", "", []
    seen = set()
    for number, line in enumerate(text.splitlines(), 1):
        text_of_line = line.strip()
        if fence:
            if text_of_line == fence:
                fence = ""
            elif section in SECTIONS and (command := command_in(line)):
                commands.append(command)
        elif text_of_line.startswith("```"):
            fence, opened = "```", number
        elif line.startswith("## "):
            section = line.removeprefix("## ").strip()
            seen.add(section)
    if fence:
        raise Misconfigured(f"README.md:{opened}: this code block is never closed")
    if "Operation" not in seen:
        raise Misconfigured("README.md has no section Operation: there is no runbook to execute")
    return commands


def remedies(text: str) -> dict[str, str]:
    """Rule -> what the README's section Troubleshooting says to do, with the number of the item."""
    behind = text.partition("\n## Troubleshooting\n")[2].partition("\n## ")[0]
    found: dict[str, str] = {}
    for item in re.split(r"^(?=\d+\. )", behind, flags=re.MULTILINE):
        if told := REMEDY.match(item.partition("```")[0]):
            words = " ".join(told[3].split())
            found |= dict.fromkeys(re.findall(r"`([a-z-]+)`", told[2]), f"Troubleshooting {told[1]}: {words}")
    return found


def command_in(line: str) -> str:
    """The command that a line of a code block tells to type; "" for a remark, and for what a command answers."""
    line = line.strip()
    return line.removeprefix("$ ").strip() if line.startswith("$ ") and not line.startswith("$ #") else ""


def commands_of_features(features: Iterable[Path]) -> list[str]:
    """The commands that the scenarios type, in the order of the files and lines."""
    lines = (line.strip() for feature in sorted(features) for line in feature.read_text().splitlines())
    return [found.group(1) for line in lines if (found := TYPED.match(line))]


def drift(readme: list[str], executed: list[str], *, whole: bool) -> str:
    """How the commands that were executed differ from the README's, in one line; "" when they do not.

    A run that was not `whole` (a selection, a failure) may end early, and must not differ before.
    """
    for index, (wanted, typed) in enumerate(zip(readme, executed, strict=False), 1):
        if wanted != typed:
            return f"command {index} of the runbook is `{wanted}`, executed was `{typed}`"
    if len(executed) > len(readme):
        return f"executed, but not in the runbook: `{executed[len(readme)]}`"
    if whole and len(readme) > len(executed):
        return f"in the runbook, but not executed: `{readme[len(executed)]}`"
    return ""


# -- the README in parts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A piece of the README: its Markdown, and the commands that it tells to type.

    One with a number is that step of the section Operation; its Markdown is then without number and indent.
    """

    text: str
    commands: tuple[str, ...]
    number: int | None = None


@dataclass(frozen=True)
class Section:
    """A section of the README: its title, and what is in it."""

    title: str
    blocks: tuple[Block, ...]


def sections(text: str) -> tuple[Section, ...]:
    """The sections of the README, in order. The first is what stands before all others; its title is the README's.

    The steps are the numbered items of the section Operation, up to a heading inside of it.
    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    titles = [""]
    blocks: list[list[Block]] = [[]]
    numbered = False
    for tokens, start, end in _blocks(lines):
        head = tokens[0]
        if head.tag == "h1" and titles == [""]:
            titles = [" ".join(tokens[1].content.split())]
            start = _line(head, 1)
        elif head.tag in ("h1", "h2"):
            titles.append(" ".join(tokens[1].content.split()))
            blocks.append([])
            numbered = titles[-1] == "Operation"
            start = _line(head, 1)
        elif head.type == "heading_open":
            numbered = False
        if numbered and head.type == "ordered_list_open":
            blocks[-1] += _steps(tokens, lines, end)
        elif inside := "\n".join(lines[start:end]).strip("\n"):
            blocks[-1].append(Block(inside, _commands(tokens)))
    return tuple(Section(title, tuple(inside)) for title, inside in zip(titles, blocks, strict=True))


def _blocks(lines: Sequence[str]) -> Iterator[tuple[list[Token], int, int]]:
    """The outermost blocks: their tokens, their first line, and the first line of the next."""
    blocks: list[list[Token]] = []
    for token in MarkdownIt("commonmark").enable("table").parse("\n".join(lines)):
        if token.level == 0 and token.nesting >= 0:
            blocks.append([])
        blocks[-1].append(token)
    starts = [_line(tokens[0]) for tokens in blocks]
    return zip(blocks, starts, [*starts[1:], len(lines)], strict=False)


def _steps(tokens: Sequence[Token], lines: Sequence[str], end: int) -> Iterator[Block]:
    opened = [at for at, token in enumerate(tokens) if token.type == "list_item_open" and token.level == 1]
    for at, behind in pairwise([*opened, len(tokens)]):
        item = tokens[at]
        first, *others = lines[_line(item) : _line(tokens[behind]) if behind < len(tokens) else end]
        content = first.lstrip().removeprefix(item.info + item.markup).lstrip()
        indent = len(first) - len(content)
        inside = [line[min(indent, len(line) - len(line.lstrip())) :] for line in others]
        text = "\n".join([content, *inside]).strip("\n")
        yield Block(text, _commands(tokens[at:behind]), int(item.info))


def _commands(tokens: Iterable[Token]) -> tuple[str, ...]:
    lines = (line for token in tokens if token.type == "fence" for line in token.content.split("\n"))
    return tuple(command for line in lines if (command := command_in(line)))


def _line(token: Token, end: int = 0) -> int:
    assert token.map is not None
    return token.map[end]


# -- the features ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A line of a scenario; `block` is the table or the text that stands beneath it."""

    keyword: str
    text: str
    block: str = ""


@dataclass(frozen=True)
class Scenario:
    """A claim of the runbook: its title, the steps that prove it, those of the Background first, and its line."""

    title: str
    steps: tuple[Step, ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Feature:
    """The claims that belong together; `path` as the record has it."""

    path: str
    title: str
    description: str
    scenarios: tuple[Scenario, ...]

    @property
    def number(self) -> int | None:
        """The step of the runbook that it is about: N, where its title is "N. Title"."""
        found = NUMBERED.fullmatch(self.title)
        return int(found[1]) if found else None


def read_features(folder: Path) -> tuple[Feature, ...]:
    """The features of a folder, in the order of the file names. Raises Misconfigured with what to mend."""
    paths = sorted(folder.glob("*.feature"))
    if not paths:
        raise Misconfigured(f"{folder} holds no *.feature: the runbook's claims belong there")
    missing = "it was there a moment ago, try again"
    return tuple(feature(f"{folder.name}/{path.name}", files.read(path, if_missing=missing)) for path in paths)


def feature(path: str, text: str) -> Feature:
    """The feature in the text of its file. A Scenario Outline is as many scenarios as its Examples have rows.

    Raises Misconfigured for what is no Gherkin, and for a title that stands twice: pytest-bdd would drop the first."""
    try:
        document: Any = Parser().parse(text)
    except CompositeParserException as refused:
        first = refused.errors[0]
        reason = str(first).partition(": ")[2]
        raise Misconfigured(f"{path}:{first.location['line']}: mend this line, it is no Gherkin: {reason}") from refused
    if "feature" not in document:
        raise Misconfigured(f"{path} holds no Feature: write one, or remove the file")
    document["uri"] = path
    found = document["feature"]
    parts = list(_parts(found["children"]))
    keywords = {step["id"]: step["keyword"].strip() for part in parts for step in part.get("steps", ())}
    lines = {part["id"]: int(part["location"]["line"]) for part in parts}
    _require_own_titles(path, [part for part in parts if "examples" in part])
    scenarios = tuple(
        Scenario(
            pickle["name"],
            tuple(Step(keywords[it["astNodeIds"][0]], it["text"], _argument(it)) for it in pickle["steps"]),
            lines[pickle["astNodeIds"][0]],
        )
        for pickle in Compiler().compile(document)
    )
    description = "\n".join(line.strip() for line in found["description"].split("\n"))
    return Feature(path, found["name"], description, scenarios)


def _parts(children: Iterable[Any]) -> Iterator[Any]:
    """The backgrounds, scenarios and rules, and what is in the rules."""
    for child in children:
        for part in child.values():
            yield part
            yield from _parts(part.get("children", ()))


def _require_own_titles(path: str, scenarios: Iterable[Any]) -> None:
    lines: dict[str, list[str]] = {}
    for scenario in scenarios:
        lines.setdefault(scenario["name"], []).append(str(scenario["location"]["line"]))
    for title, found in lines.items():
        if len(found) > 1:
            raise Misconfigured(f'{path}: "{title}" is the title of lines {" and ".join(found)}: each needs its own')


def _argument(step: Any) -> str:
    argument = step.get("argument", {})
    rows = argument.get("dataTable", {}).get("rows", ())
    table = ["| " + " | ".join(cell["value"] for cell in row["cells"]) + " |" for row in rows]
    text = argument.get("docString", {}).get("content")
    return "\n".join(table + ([text] if text else []))
