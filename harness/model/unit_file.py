"""Unit files as fleet 1.0.0 reads them: the options that it stores, or why it refuses them.

fleet's reader is go-systemd's (unit/deserialize.go of November 2016) and not systemd's own. It works on bytes: a line
ends at LF; a backslash continues a line only as its very last byte, so a blank or a CR behind it does not; a comment
that ends in a backslash takes the next line with it; what stands before the first section is passed over. fleet then
writes the options down, section by section, reads that again, and answers with the result through its API, in JSON:
bytes that are no UTF-8 come back as U+FFFD.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Section, name and value of each option, in order
Options = tuple[tuple[str, str, str], ...]

# Bytes without an end of line that are too many; those of Go's buffer, on which it depends where that is looked for
LINE_MAX = 2048
BUFFER = 4096
# What Go takes for white space (unicode.IsSpace), which is less than Python does
BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


BYTE_ORDER_MARK = "\ufeff"
COMMENTS = ("#", ";")


class Refused(ValueError):
    """fleet refuses this text: in which line (from 1 on), and what it says."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


@dataclass(frozen=True)
class Parsed:
    """What fleet's reader makes of a text: the options with the lines that they begin in, and the lines that it passes
    over without a word: before the first section, and behind a comment that ends in a backslash."""

    options: Options
    lines: tuple[int, ...]
    before_sections: tuple[int, ...]
    in_comments: tuple[int, ...]


def stored(text: bytes) -> Options:
    """The options that fleet stores of a unit file, as its API gives them. Raises Refused."""
    return parse(written(parse(text).options)).options


def parse(text: bytes) -> Parsed:
    """One reading of a text. Raises Refused."""
    return _Reader(text).parsed()


def written(options: Options) -> bytes:
    """The options as fleet writes them down: those of a section together, sections in the order of their first one."""
    sections: dict[str, list[str]] = {}
    for section, name, value in options:
        sections.setdefault(section, []).append(f"{name}={value}\n")
    return "\n".join(f"[{section}]\n{''.join(lines)}" for section, lines in sections.items()).encode()


# `docker run ... ${IMAGE_REGISTRY}/NAME:TAG` of a unit, whatever stands between; and a variable
IMAGE = re.compile(r"\bdocker run\b.*?\$\{?IMAGE_REGISTRY\}?/(\S+)", re.DOTALL)
VARIABLE = re.compile(r"\$\{?(\w+)\}?")


def image_of(options: Options) -> str:
    """NAME:TAG of the image that a unit runs, from the cluster's registry; "" of one that runs none of it, or by its
    digest."""
    of_service = [(name, value) for section, name, value in options if section == "Service"]
    found = IMAGE.search(" ".join(value for name, value in of_service if name == "ExecStart"))
    words = " ".join(value for name, value in of_service if name == "Environment").replace('"', "").split()
    variables = dict(word.split("=", 1) for word in words if "=" in word)
    image = VARIABLE.sub(lambda it: variables.get(it[1], ""), found[1]) if found else ""
    if not image or "@" in image:
        return ""
    return image if ":" in image else f"{image}:latest"


def differences(written: Options, held: Options) -> list[str]:
    """What `held`, which fleet holds of a unit, says otherwise than its file; a line for each option."""
    ours, theirs = _by_name(written), _by_name(held)
    return [
        f"[{section}] {name} is {_shown(ours.get((section, name)))} in its file, "
        f"and {_shown(theirs.get((section, name)))} in fleet"
        for section, name in {**ours, **theirs}
        if ours.get((section, name)) != theirs.get((section, name))
    ]


def _by_name(options: Options) -> dict[tuple[str, str], list[str]]:
    values: dict[tuple[str, str], list[str]] = {}
    for section, name, value in options:
        values.setdefault((section, name), []).append(value)
    return values


def _shown(values: list[str] | None) -> str:
    return "not there" if values is None else ", ".join(map(repr, values))


def _decoded(data: bytes) -> str:
    """As Go reads and JSON-encodes it: each byte that belongs to no character is one U+FFFD."""
    return re.sub("[\udc80-\udcff]", "\ufffd", data.decode("utf-8", "surrogateescape"))


def _blank(data: bytes) -> bool:
    return not _decoded(data).strip(BLANKS)


class _Buffer:
    """A text as Go's bufio.Reader holds it. How much is held decides whether a line that is too long is noticed."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0
        self._held = 0

    @property
    def line(self) -> int:
        """The number of the line that comes next."""
        return self._text.count(b"\n", 0, self._at) + 1

    def _fill(self) -> None:
        self._held = min(self._at + BUFFER, len(self._text))

    def refuse_long_line(self) -> None:
        if self._held - self._at < LINE_MAX:
            return
        if not re.search(rb"[\r\n]", self._text[self._at : self._at + LINE_MAX]):
            raise Refused(self.line, f"line too long (max {LINE_MAX} bytes)")

    def peek(self) -> str:
        """The next character; "" at the end of the text."""
        size = self._size()
        return _decoded(self._text[self._at : self._at + size])

    def take(self) -> str:
        character, size = self.peek(), self._size()
        self._at += size
        return character

    def _size(self) -> int:
        """Of the next character in bytes; of one that is none, 1."""
        if self._at == self._held:
            self._fill()
        lead = self._text[self._at : self._at + 1]
        size = 1 + sum(lead >= least for least in (b"\xc2", b"\xe0", b"\xf0")) if lead < b"\xf5" else 1
        if self._at + size > self._held:
            self._fill()
        try:
            self._text[self._at : self._at + size].decode()
        except UnicodeDecodeError:
            return 1
        return min(size, len(self._text) - self._at)

    def through(self, end: bytes) -> bytes:
        """Up to and with this byte, or all the rest."""
        begin = self._at
        while (found := self._text.find(end, self._at, self._held)) < 0:
            if self._held - self._at >= BUFFER or self._held == len(self._text):
                self._at = self._held  # Go takes a full buffer, and goes on with an empty one
            if self._at == len(self._text):
                return self._text[begin:]
            self._fill()
        self._at = found + 1
        return self._text[begin : self._at]

    def rest_of_line(self) -> tuple[bytes, bool]:
        """The line without its end, and whether the text ended with it. A CR before the LF stays."""
        line = self.through(b"\n")
        return line.removesuffix(b"\r").removesuffix(b"\n"), not line.endswith(b"\n")


class _Reader:
    """fleet's reader. Before each step it looks for a line that is too long."""

    def __init__(self, text: bytes) -> None:
        self._text = _Buffer(text)
        self._options: list[tuple[str, str, str]] = []
        self._lines: list[int] = []
        self._before: dict[int, None] = {}
        self._in_comments: list[int] = []

    def parsed(self) -> Parsed:
        if self._find_section():
            while self._options_of(self._section_name()):
                pass
        return Parsed(tuple(self._options), tuple(self._lines), tuple(self._before), tuple(self._in_comments))

    def _find_section(self) -> bool:
        """Whether there is one; passes over what stands before it, its bracket included."""
        while True:
            self._text.refuse_long_line()
            line, character = self._text.line, self._text.take()
            if character in ("", "["):
                return bool(character)
            if character in COMMENTS:
                self._pass_comment()
            elif character.strip(BLANKS + BYTE_ORDER_MARK):
                self._before[line] = None

    def _section_name(self) -> str:
        self._text.refuse_long_line()
        line, name = self._text.line, self._text.through(b"]")
        if not name.endswith(b"]"):
            raise Refused(line, "unable to find end of section")
        self._text.refuse_long_line()
        garbage, _ = self._text.rest_of_line()
        if not _blank(garbage):
            raise Refused(line, f"found garbage after section name: {_decoded(garbage).strip(BLANKS)!r}")
        return _decoded(name[:-1])

    def _options_of(self, section: str) -> bool:
        """Reads them; whether another section follows."""
        while True:
            self._text.refuse_long_line()
            character = self._text.peek()
            if character in ("", "["):
                self._text.take()
                return bool(character)
            if character in COMMENTS:
                self._text.take()
                self._pass_comment()
            elif not character.strip(BLANKS):
                self._text.take()
            else:
                self._lines.append(self._text.line)
                self._options.append((section, self._option_name(), self._option_value()))

    def _option_name(self) -> str:
        self._text.refuse_long_line()
        line, name = self._text.line, ""
        while (character := self._text.take()) != "=":
            if character in ("", "\n", "\r"):
                end = "unexpected newline" if character else "unexpected end of file"
                raise Refused(line, f"{end} encountered while parsing option name: {name.strip(BLANKS)!r}")
            name += character
        return name.strip(BLANKS)

    def _option_value(self) -> str:
        value = b""
        while True:
            self._text.refuse_long_line()
            line, ended = self._text.rest_of_line()
            if _blank(line):
                break
            value += line
            if not line.endswith(b"\\"):
                break
            value += b"" if ended else b"\n"
        # a newline at its end is that of a line that was to be continued, and stays
        return _decoded(value).strip(BLANKS) + ("\n" if value.endswith(b"\n") else "")

    def _pass_comment(self) -> None:
        """One that ends in a backslash goes on in the next line."""
        self._text.refuse_long_line()
        while True:
            line, _ = self._text.rest_of_line()
            if not line.removesuffix(b" ").endswith(b"\\"):
                return
            self._in_comments.append(self._text.line)
