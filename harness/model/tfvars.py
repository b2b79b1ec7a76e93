"""Reads the top-level assignments of a terraform.tfvars file, and replaces the value of one in place.

Why a scanner of our own: python-hcl2 (8.1.4, alive, 2026) parses such a file, but its reconstruct() gives other text
back: blanks before a comment are lost, CRLF becomes LF, a byte order mark is refused. The file is the operator's,
comments and alignment included, so an edit may touch the value and nothing else. The scanner knows no more of HCL than
it takes to tell a top-level assignment from its look-alikes in comments, strings, heredocs, templates and brackets.

What HCL takes and refuses was checked against Terraform 1.11.4: a heredoc's end may be indented, but needs a newline
after it; a newline ends an assignment unless a bracket is open; `$${` and `%%{` stand for `${` and `%{`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import Misconfigured

FILE = "terraform.tfvars"
BYTE_ORDER_MARK = "\ufeff"

_BLANKS = re.compile(r"[ \t]+|(?:#|//)[^\n]*|/\*.*?\*/", re.DOTALL)
_NAME = re.compile(r"[^\W\d][\w-]*")
_NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,18})?([eE][+-]?\d{1,3})?")
_HEREDOC = re.compile(r"<<-?([^\W\d][\w-]*)\r?\n")
_OPERATOR = re.compile(r"[=!<>]=|=>")
_ESCAPE = re.compile(r'\\(?:([nrt"\\])|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))|([$%])\4\{')
_CLOSER = {"(": ")", "[": "]", "{": "}"}
_ESCAPED = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
_UNESCAPED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}


@dataclass(frozen=True)
class Other:
    """A value that is not a plain string or number: map, list, heredoc, template, bool, null; as it is written."""

    source: str


@dataclass(frozen=True)
class Assignment:
    """One top-level `name = value`: its line (from 1), its value, and the characters [start, end) of the value."""

    name: str
    line: int
    value: str | int | float | Other
    start: int
    end: int


class _Malformed(Exception):
    """The text cannot be a .tfvars file; carries where (offset) and what to do."""

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(reason)
        self.at = at


def assignments(text: str, file: str = FILE) -> dict[str, Assignment]:
    """The top-level assignments by name, in the file's order.

    `file` is what messages call the text. Raises Misconfigured, with line and remedy, for a malformed text.
    """
    try:
        return _scan(text)
    except _Malformed as fault:
        raise Misconfigured(f"{file} line {_line(text, fault.at)}: {fault}") from fault
    except RecursionError as fault:
        raise Misconfigured(f"{file}: brackets are nested too deeply to be read") from fault


def read(text: str, file: str = FILE) -> dict[str, str | int | float | Other]:
    """The values of the top-level assignments by name; raises as `assignments` does."""
    return {name: one.value for name, one in assignments(text, file).items()}


def set_string(text: str, name: str, value: str, file: str = FILE) -> str:
    """The text with the string `value` assigned to `name`, every other character as it was.

    A top-level assignment gets the new value; where there is none, the line `name = "value"` is appended. Raises
    Misconfigured for a malformed text, and when the present value is a map, a list or another expression (null is
    as good as a string: it says "not set").
    """
    present = assignments(text, file).get(name)
    if present and isinstance(present.value, Other) and present.value.source != "null":
        raise Misconfigured(f'{file} line {present.line}: {name} is not a plain string: write {name} = ""')
    return _set(text, name, quote(value), present)


def set_number(text: str, name: str, value: int, file: str = FILE) -> str:
    """The text with `value` assigned to `name`, whatever was, every other character as before; else as set_string."""
    return _set(text, name, str(value), assignments(text, file).get(name))


def _set(text: str, name: str, source: str, present: Assignment | None) -> str:
    if present is None:
        return _append(text, f"{name} = {source}")
    return text[: present.start] + source + text[present.end :]


def quote(value: str) -> str:
    """The value as a quoted HCL string: `say "${x}"` becomes `"say \\"$${x}\\""`."""
    plain = value.replace("${", "$${").replace("%{", "%%{")
    return '"' + "".join(_ESCAPED.get(c) or (c if c >= " " else f"\\u{ord(c):04x}") for c in plain) + '"'


def _append(text: str, line: str) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    unfinished = text.removeprefix(BYTE_ORDER_MARK) and not text.endswith("\n")
    return text + (newline if unfinished else "") + line + newline


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _scan(text: str) -> dict[str, Assignment]:
    found: dict[str, Assignment] = {}
    at = _past_blanks(text, text.startswith(BYTE_ORDER_MARK), newlines=True)
    while at < len(text):
        one = _assignment(text, at)
        if one.name in found:
            first = found[one.name].line
            raise _Malformed(at, f"{one.name} is assigned a second time (first in line {first}): delete one of them")
        found[one.name] = one
        at = _past_blanks(text, one.end, newlines=True)
    return found


def _assignment(text: str, at: int) -> Assignment:
    """The assignment that begins at `at`. A block, a quoted name and stray text are none, in a .tfvars file."""
    name = _NAME.match(text, at)
    equals = _past_blanks(text, name.end(), newlines=False) if name else at
    if name is None or not text.startswith("=", equals) or _OPERATOR.match(text, equals):
        raise _Malformed(at, "not an assignment: write name = value, or put # before a remark")
    start = _past_blanks(text, equals + 1, newlines=False)
    end = _past_expression(text, start, closer="", opened=start)
    if start == end:
        raise _Malformed(at, f"{name[0]} has no value: write one behind the =, in the same line")
    return Assignment(name[0], _line(text, at), _value(text, start, end), start, end)


def _value(text: str, start: int, end: int) -> str | int | float | Other:
    source = text[start:end]
    if number := _NUMBER.fullmatch(source):
        return float(source) if number[1] or number[2] else int(source)
    if source.startswith('"') and _past_template(text, start + 1, "string", opened=start) == end:
        return _unquoted(text, start + 1, end - 1)
    return Other(source)


def _unquoted(text: str, start: int, end: int) -> str | Other:
    """What the quoted string between its quotes says; Other, if it has a template in it."""
    text_read, at = "", start
    while at < end:
        escape = _ESCAPE.match(text, at)
        if escape:
            text_read += _unescaped(escape)
            at = escape.end()
        elif text[at] == "\\":
            raise _Malformed(at, f"{text[at : at + 2]} is no escape in a string: write \\\\ for a backslash")
        elif text.startswith(("${", "%{"), at):
            return Other(text[start - 1 : end + 1])
        else:
            text_read += text[at]
            at += 1
    return text_read


def _unescaped(escape: re.Match[str]) -> str:
    if escape[1]:
        return _UNESCAPED[escape[1]]
    if escape[4]:
        return escape[4] + "{"
    code = int(escape[2] or escape[3], 16)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise _Malformed(escape.start(), f"{escape[0]} is not a Unicode character: correct the escape")
    return chr(code)


def _past_blanks(text: str, at: int, *, newlines: bool) -> int:
    """The offset behind blanks and comments; a comment's own newline is not part of it."""
    while True:
        if blanks := _BLANKS.match(text, at):
            at = blanks.end()
        elif text.startswith("/*", at):
            raise _Malformed(at, "comment is not closed: add */")
        elif newlines and (wide := _newline(text, at)):
            at += wide
        else:
            return at


def _newline(text: str, at: int) -> int:
    """How many characters of newline begin at `at`: 0, 1 or 2."""
    return 1 if text.startswith("\n", at) else 2 * text.startswith("\r\n", at)


def _past_expression(text: str, at: int, closer: str, opened: int) -> int:
    """The offset behind an expression: behind its `closer` or, without one, behind its last word in the line."""
    end = at
    while True:
        at = _past_blanks(text, at, newlines=bool(closer))
        if at >= len(text) and closer:
            raise _Malformed(opened, f"{text[opened]} is not closed: add the missing {closer}")
        if closer and text[at] == closer:
            return at + 1
        if not closer and (at >= len(text) or _newline(text, at)):
            return end
        at = end = _past_word(text, at, alone=not closer)


def _past_word(text: str, at: int, *, alone: bool) -> int:
    """The offset behind one string, heredoc, bracket, operator or other character; `alone`: in no bracket."""
    character = text[at]
    if character == '"':
        return _past_template(text, at + 1, "string", opened=at)
    if text.startswith("<<", at):
        return _past_heredoc(text, at)
    if character in _CLOSER:
        return _past_expression(text, at + 1, _CLOSER[character], opened=at)
    if character in _CLOSER.values():
        raise _Malformed(at, f"{character} closes nothing: delete it, or add what it should close")
    if character == "\r":
        raise _Malformed(at, "carriage return without a newline: save the file with LF or CRLF line ends")
    if operator := _OPERATOR.match(text, at):
        return operator.end()
    if character == "=" and alone:
        raise _Malformed(at, "second = in one line: give each assignment a line of its own")
    return at + 1


def _past_template(text: str, at: int, kind: str, opened: int) -> int:
    """The offset behind a string's closing quote, or behind one line of a heredoc; templates in it may nest."""
    while at < len(text):
        if kind == "string" and text[at] == '"':
            return at + 1
        if text[at] == "\n" or (kind == "string" and text[at] == "\r"):
            break
        if text.startswith(("$${", "%%{"), at):
            at += 3
        elif text.startswith(("${", "%{"), at):
            at = _past_expression(text, at + 2, "}", opened=at + 1)
        else:
            at += 2 if kind == "string" and text[at] == "\\" and not text.startswith("\n", at + 1) else 1
    if kind == "string":
        raise _Malformed(opened, 'string is not closed: add the missing "')
    return at + 1


def _past_heredoc(text: str, opened: int) -> int:
    """The offset behind the word that ends a heredoc, which stands alone in its line, and before that line's end."""
    start = _HEREDOC.match(text, opened)
    if start is None:
        raise _Malformed(opened, "heredoc has no name: write << and a word at the line's end")
    last, at = re.compile(rf"[ \t]*{re.escape(start[1])}(?=[ \t]*\r?\n)"), start.end()
    while at < len(text):
        if end := last.match(text, at):
            return end.end()
        at = _past_template(text, at, "heredoc", opened)
    raise _Malformed(opened, f"heredoc is not closed: add a line that is only {start[1]}")
