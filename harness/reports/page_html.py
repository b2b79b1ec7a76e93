"""The runbook's page as HTML: rendered from its Markdown, which is the one source."""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

CLASS_OF_MARK = {"✗": "failed", "!": "doubtful", "○": "never", "✓": "proven"}


def html(markdown: str) -> str:
    """The page as one HTML file that needs nothing else. HTML in the Markdown is shown, not obeyed."""
    parser = MarkdownIt("commonmark", {"html": False, "xhtmlOut": False}).enable("table").disable("image")
    tokens = parser.parse(markdown)
    headings = _headings(tokens)
    for token in tokens:
        if token.type == "fence":
            token.type, token.content = "html_block", _code_block(token)
    _colour(tokens)
    body = Markup(parser.renderer.render(tokens, parser.options, {}))
    return _template().render(headings=headings, body=body) + "\n"


@functools.cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("runbook.html")


def _headings(tokens: Sequence[Token]) -> list[tuple[str, str, str]]:
    """Gives each heading down to the third its anchor; tag, anchor and text of each."""
    found: list[tuple[str, str, str]] = []
    seen: Counter[str] = Counter()
    for head, inline in itertools.pairwise(tokens):
        if head.type == "heading_open" and head.tag in ("h1", "h2", "h3"):
            text = "".join(it.content for it in inline.children or () if it.type in ("text", "code_inline"))
            base = slug(text)
            anchor = f"{base}-{seen[base]}" if seen[base] else base
            seen[base] += 1
            head.attrSet("id", anchor)
            found.append((head.tag, anchor, text))
    return found


def _code_block(token: Token) -> str:
    """A code block whose prompts are set apart, so that they are not copied; what the record says has no prompts."""
    prompt, remark = Markup('<span class="prompt">$ </span>'), Markup('<span class="remark">{}</span>')
    name, lines = "said" if token.info == "text" else "", []
    for line in token.content.removesuffix("\n").split("\n"):
        if name == "said" or not line.startswith("$ "):
            lines.append(escape(line))
        else:
            name = "typed"
            lines.append(prompt + (remark.format(line[2:]) if line.startswith("$ #") else line[2:]))
    return Markup('<pre class="{}"><code>{}</code></pre>\n').format(name, Markup("\n").join(lines))


def _colour(tokens: Sequence[Token]) -> None:
    """Gives marks their colour, lists of marked items a class, and links that show their address one too."""
    opened: list[Token] = []
    for token in tokens:
        if token.nesting == 1:
            opened.append(token)
        elif token.nesting == -1:
            token.hidden = opened.pop().hidden
        children = token.children or []
        for child in children:
            if child.type == "link_open" and child.markup == "autolink":
                child.attrSet("class", "address")
        begins = children[0].content if children and children[0].type == "text" else ""
        name = CLASS_OF_MARK.get(begins[:1]) if begins[1:2] == " " else None
        if name is not None:
            children[0].content = begins[1:]
            children.insert(0, Token("html_inline", "", 0, content=f'<i class="mark {name}">{begins[:1]}</i>'))
            if opened[-2:-1] and opened[-2].type == "list_item_open":
                opened[-1].hidden = False  # the items of a short list would be without paragraphs
                opened[-3].attrSet("class", "claims" if children[2:] and children[2].type == "strong_open" else "typed")


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
