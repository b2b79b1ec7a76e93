"""harness/model/tfvars.py: what is refused, what is read, and that an edit changes the value and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.errors import Misconfigured
from harness.model import tfvars
from harness.model.tfvars import Other

NAME = "discovery_url"
quick = settings(deadline=None, database=None)

MALFORMED = {
    "string not closed": ('a = 1\nb = "x\nc = 2\n', 2, 'add the missing "'),
    "string not closed at the end": ('a = "x', 1, 'add the missing "'),
    "escaped quote closes nothing": ('a = "x\\"\n', 1, 'add the missing "'),
    "backslash at the end": ('a = "x\\', 1, 'add the missing "'),
    "carriage return in a string": ('a = "x\ry"\n', 1, 'add the missing "'),
    "brace not closed": ("a = 1\n\nb = {\n c = [1]\n", 3, "{ is not closed: add the missing }"),
    "bracket not closed": ("a = [1,\n2\n", 1, "[ is not closed: add the missing ]"),
    "brackets crossed": ("a = [{ b = 1 ]\n", 1, "] closes nothing"),
    "template not closed": ('a = "${ b"\n', 1, 'add the missing "'),
    "template's brace not closed": ('a = "${ [1] \n', 1, "{ is not closed"),
    "stray closer": ("a = 1\n}\n", 2, "not an assignment"),
    "stray closer behind a value": ("a = 1 }\n", 1, "} closes nothing"),
    "heredoc not closed": ("a = 1\nb = <<EOT\nx\nEOT2\n", 2, "add a line that is only EOT"),
    "heredoc without a newline behind its end": ("a = <<EOT\nx\nEOT", 1, "add a line that is only EOT"),
    "heredoc without a name": ("a = << \nx\n", 1, "heredoc has no name"),
    "comment not closed": ("a = 1\n/* b\n", 2, "add */"),
    "comment not closed in a value": ("a = [ /* b\n]\n", 1, "add */"),
    "same name twice": ("a = 1\n# a = 3\na = 2\n", 3, "a is assigned a second time (first in line 1): delete one"),
    "no value": ("a = 1\nb =\n", 2, "b has no value"),
    "value in the next line": ("a =\n1\n", 1, "a has no value"),
    "no value but a comment": ("a = # 1\n", 1, "a has no value"),
    "block": ("a {\n}\n", 1, "not an assignment"),
    "quoted name": ('"a" = 1\n', 1, "not an assignment"),
    "dotted name": ("a.b = 1\n", 1, "not an assignment"),
    "comparison": ("a == 1\n", 1, "not an assignment"),
    "prose": ("a = 1\nset it here\n", 2, "not an assignment"),
    "two in a line": ("a = 1 b = 2\n", 1, "a line of its own"),
    "two in a line, comma": ("a = 1, b = 2\n", 1, "a line of its own"),
    "carriage returns only": ("a = 1\rb = 2\r", 1, "LF or CRLF"),
    "unknown escape": ('a = "\\q"\n', 1, "write \\\\ for a backslash"),
    "surrogate": ('a = "\\uD800"\n', 1, "not a Unicode character"),
    "beyond Unicode": ('a = "\\U00110000"\n', 1, "not a Unicode character"),
}


@pytest.mark.parametrize(("text", "line", "remedy"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_text_is_refused_with_file_line_and_remedy(text: str, line: int, remedy: str) -> None:
    for call in (lambda: tfvars.read(text, "my.tfvars"), lambda: tfvars.set_string(text, NAME, "x", "my.tfvars")):
        with pytest.raises(Misconfigured) as refused:
            call()
        message = str(refused.value)
        assert message.startswith(f"my.tfvars line {line}: ")
        assert remedy in message
        assert "\n" not in message


def test_brackets_nested_without_end_are_refused() -> None:
    with pytest.raises(Misconfigured, match="nested too deeply"):
        tfvars.read("a = " + "[" * 100_000)


@pytest.mark.parametrize("value", ["[]", '["x"]', "{ x = 1 }", "<<X\ny\nX", "true", '"${"x"}"', '"x" == "y"', "x.y"])
def test_a_value_that_is_no_plain_string_is_not_replaced(value: str) -> None:
    with pytest.raises(Misconfigured, match=r'^terraform.tfvars line 2: discovery_url .*write discovery_url = ""$'):
        tfvars.set_string(f"a = 1\n{NAME} = {value}\n", NAME, "x")


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("03", 3),
        ("3.0", 3.0),
        ("3e0", 3.0),
        ('""', ""),
        ('"3"', "3"),
        (r'"\"\\\n\r\t"', '"\\\n\r\t'),
        (r'"\u00e9\U0001F600"', "é😀"),
        ('"é # // /* < { ["', "é # // /* < { ["),
        ('"$${x} %%{x} $ % $x {"', "${x} %{x} $ % $x {"),
        ('"$$${x} $$$${x}"', "$${x} $$${x}"),
        ('"\u2028"', "\u2028"),
        ("null", Other("null")),
        ("true", Other("true")),
        ("9" * 5000, Other("9" * 5000)),
        ('"${"x"}"', Other('"${"x"}"')),
        ('"%{ if true }x%{ endif }"', Other('"%{ if true }x%{ endif }"')),
        ('[1,\n # ]\n "]", /* ] */ 2\n]', Other('[1,\n # ]\n "]", /* ] */ 2\n]')),
        ('{ "a" : 1, b = "}" }', Other('{ "a" : 1, b = "}" }')),
        ("1 == 2", Other("1 == 2")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("behind", ["", "   ", " # b = 2", "// b = 2", " /* b\n = 2 */"])
def test_values_are_read_as_terraform_reads_them(source: str, value: object, behind: str) -> None:
    assert tfvars.read(f"x = 1\na={source}{behind}\nc = 3\n") == {"x": 1, "a": value, "c": 3}


@pytest.mark.parametrize("source", ["<<X\na = 1\n XX\nX b\n X", '<<-X\n${ [<<Y\nX\nY\n][0] } $${ "\nX', "<<é-X\né-X"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("behind", ["", " \t"])
def test_a_heredoc_ends_at_the_line_that_is_only_its_word(source: str, newline: str, behind: str) -> None:
    source = source.replace("\n", newline)
    assert tfvars.read(f"a = {source}{behind}{newline}b = 2{newline}") == {"a": Other(source), "b": 2}


def test_an_assignment_knows_its_line() -> None:
    found = tfvars.assignments('\ufeff# c\r\n\r\na = <<X\r\nb = 1\r\nX\r\n\tb-c /* d\r\n*/ = "é"')
    assert [(one.name, one.line) for one in found.values()] == [("a", 3), ("b-c", 6)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f'{NAME} = "u"\n'),
        ("\ufeff", f'\ufeff{NAME} = "u"\n'),
        ("a = 1\n", f'a = 1\n{NAME} = "u"\n'),
        ("a = 1", f'a = 1\n{NAME} = "u"\n'),
        ("a = 1 # c", f'a = 1 # c\n{NAME} = "u"\n'),
        ("a = 1\r\nb = 2", f'a = 1\r\nb = 2\r\n{NAME} = "u"\r\n'),
        (f"# {NAME} = 1\n\n\n", f'# {NAME} = 1\n\n\n{NAME} = "u"\n'),
        (f"{NAME}_2 = 1\n", f'{NAME}_2 = 1\n{NAME} = "u"\n'),
        (f"  {NAME}   =\t'' \n".replace("''", '"x"'), f'  {NAME}   =\t"u" \n'),
        (f'{NAME}="x"#c', f'{NAME}="u"#c'),
        (f'{NAME} = "x" // "y"   \r\nb = 1', f'{NAME} = "u" // "y"   \r\nb = 1'),
        (f"{NAME} = null", f'{NAME} = "u"'),
        (f"{NAME} = 3\n", f'{NAME} = "u"\n'),
    ],
)
def test_a_string_is_set_in_place_or_appended(before: str, after: str) -> None:
    assert tfvars.set_string(before, NAME, "u") == after


@pytest.mark.parametrize("text", ["machines = [1", 'machines = "3', "machines\n"])
def test_a_number_is_not_set_in_a_malformed_text(text: str) -> None:
    with pytest.raises(Misconfigured, match=r"^my.tfvars line 1: "):
        tfvars.set_number(text, "machines", 5, "my.tfvars")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "machines = 5\n"),
        ("a = 1", "a = 1\nmachines = 5\n"),
        ("machines_2 = 1\r\n", "machines_2 = 1\r\nmachines = 5\r\n"),
        ("# machines = 1\n", "# machines = 1\nmachines = 5\n"),
        ("machines = 3\n", "machines = 5\n"),
        ("  machines\t=  3  # of a hundred\na = 1", "  machines\t=  5  # of a hundred\na = 1"),
        ('machines = "3"', "machines = 5"),
        ("machines = 3.5e0 // three", "machines = 5 // three"),
        ("machines = null\n", "machines = 5\n"),
        # whatever was: what the command line says counts
        ("machines = [\n1,\n]\na = 1\n", "machines = 5\na = 1\n"),
        ("machines = 1 == 2 ? 3 : 4\n", "machines = 5\n"),
    ],
)
def test_a_number_is_set_in_place_or_appended(before: str, after: str) -> None:
    assert tfvars.set_number(before, "machines", 5) == after
    assert tfvars.read(after)["machines"] == 5


def test_a_number_is_set_in_the_example() -> None:
    example = (Path(__file__).parent.parent.parent / "terraform.example.tfvars").read_text()

    assert tfvars.read(tfvars.set_number(example, "machines", 7)) == {**tfvars.read(example), "machines": 7}


# --- properties


@dataclass(frozen=True)
class Piece:
    """Part of a generated file; `target`: it assigns NAME, and `front` ends where the value begins."""

    front: str
    value: str = ""
    behind: str = ""
    target: bool = False


blanks = st.text(alphabet=" \t", max_size=3)
strange = st.text(alphabet='ab$%{}"\\\n\r\t#/*<é😀', max_size=12)
values = st.one_of(st.text(max_size=20), strange)
inline = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=15)
decoy = f'{NAME} = "decoy"'
names = st.sampled_from(["machines", "discovery", "discovery_url_2", "my-discovery_url", "é", "_x", "null"])


@st.composite
def comments(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["# {}", "// {}", "/* {} */", "/* \n {}\n*/"]))
    return kind.format(draw(st.one_of(st.just(decoy), inline)).replace("*", ""))


@st.composite
def sources(draw: st.DrawFn) -> str:
    """A value of any kind, with look-alikes of the assignment in it."""
    string = tfvars.quote(draw(values))
    return draw(
        st.sampled_from(
            [
                "3",
                "true",
                string,
                tfvars.quote(decoy),
                f"[{string},\n  3, # {decoy}\n]",
                f"{{\n  {decoy}\n  b = {string}\n}}",
                f"<<-EOT\n{decoy}\n  EOT2\n  EOT",
                f'"${{[{string}, "{{"][0]}}"',
                f'(\n{{ a = "}}", {decoy} }}\n)',
            ]
        )
    )


@st.composite
def files(draw: st.DrawFn, present: bool) -> list[Piece]:
    """A sound file: comments, empty lines and assignments, among them one of NAME or none."""
    pieces = []
    for name in draw(st.lists(names, unique=True, max_size=4)):
        pieces.append(Piece(draw(comments()) + "\n" if draw(st.booleans()) else draw(blanks) + "\n"))
        source = draw(sources())
        tail = "" if "<<" in source else draw(st.one_of(st.just(""), comments()))  # no comment behind a heredoc's end
        front = f"{draw(blanks)}{name}{draw(blanks)}={draw(blanks)}"
        pieces.append(Piece(front, source, draw(blanks) + tail + draw(blanks) + "\n"))
    if present:
        value = draw(st.one_of(values.map(tfvars.quote), st.just("null"), st.just("12")))
        front = f"{draw(blanks)}{NAME}{draw(blanks)}={draw(blanks)}"
        behind = draw(blanks) + draw(st.one_of(st.just(""), comments())) + "\n"
        pieces.insert(draw(st.integers(0, len(pieces))), Piece(front, value, behind, target=True))
    return pieces


def written(pieces: list[Piece], crlf: bool, mark: bool, target: str | None = None) -> str:
    """The file's text; `target` stands for NAME's value, where it is given."""
    text = "".join(p.front + (target if p.target and target is not None else p.value) + p.behind for p in pieces)
    return ("\ufeff" if mark else "") + (text.replace("\n", "\r\n") if crlf else text)


@quick
@given(pieces=files(present=True), value=values, crlf=st.booleans(), mark=st.booleans(), last=st.booleans())
def test_replacing_changes_the_value_and_no_other_byte(
    pieces: list[Piece], value: str, crlf: bool, mark: bool, last: bool
) -> None:
    if last:  # the assignment ends the file, without a newline
        pieces = [p for p in pieces if not p.target] + [Piece(p.front, p.value, "", True) for p in pieces if p.target]
    before = written(pieces, crlf, mark)
    after = tfvars.set_string(before, NAME, value)
    assert after.encode() == written(pieces, crlf, mark, target=tfvars.quote(value)).encode()
    assert tfvars.read(after) == {**tfvars.read(before), NAME: value}
    assert tfvars.set_string(after, NAME, value) == after


@quick
@given(pieces=files(present=False), value=values, crlf=st.booleans(), mark=st.booleans())
def test_appending_adds_one_line_and_changes_no_byte(pieces: list[Piece], value: str, crlf: bool, mark: bool) -> None:
    before = written(pieces, crlf, mark)
    after = tfvars.set_string(before, NAME, value)
    newline = "\r\n" if "\r\n" in before else "\n"
    assert after.encode() == (before + f"{NAME} = {tfvars.quote(value)}{newline}").encode()
    assert tfvars.read(after) == {**tfvars.read(before), NAME: value}
    assert tfvars.set_string(after, NAME, value) == after


@quick
@given(value=values)
@example('say "${x}" %{y} $${z} \\ \n\r\t\x00\x7f\u2028 é😀')
def test_any_string_survives_quoting(value: str) -> None:
    quoted = tfvars.quote(value)
    assert tfvars.read(f"a = {quoted}\n") == {"a": value}
    assert not re.search(r"[\x00-\x1f]", quoted)


@quick
@given(st.text(alphabet='ab= \n\r"\\${}%[]()#/*<X1,', max_size=30))
def test_any_text_is_read_or_refused_with_its_line(text: str) -> None:
    try:
        found = tfvars.assignments(text)
    except Misconfigured as refused:
        assert re.fullmatch(r"terraform\.tfvars line \d+: .+", str(refused))
    else:
        assert all(1 <= one.line <= text.count("\n") + 1 for one in found.values())
        assert NAME in tfvars.read(tfvars.set_string(text, NAME, "x"))
