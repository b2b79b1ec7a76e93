"""The README as a runbook: which commands its reader is told to type."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from harness.errors import Misconfigured

# Sections whose every command is executed by a scenario.
SECTIONS = ("Operation", "Prerequisites", "Recovery")
TYPED = re.compile(r"(?:When|And|But|Given|Then|\*) the operator runs `([^`]+)`(?: within \d+ seconds)?\s*$")


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
            elif section in SECTIONS and text_of_line.startswith("$ ") and not text_of_line.startswith("$ #"):
                commands.append(text_of_line.removeprefix("$ ").strip())
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
