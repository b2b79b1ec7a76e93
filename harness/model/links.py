"""What HTML pages and stylesheets link to, over HTTP; mailto:, data: and the like are passed over.

What is an element, an attribute or a token, and where a URL leads, is the standards' to say, and libraries know them:
lexbor for HTML, tinycss2 for CSS, ada for URLs. What stands here is which of an element's attributes are links
(HTML and SVG 2, tables of attributes), and for what.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import ada_url
import tinycss2
from selectolax.lexbor import LexborHTMLParser, LexborNode

# (element, attribute) -> what the link is for. A "link" is followed by a person's click; all else belongs to the page.
_PURPOSES = {
    ("a", "href"): "link",
    ("area", "href"): "link",
    ("audio", "src"): "media",
    ("embed", "src"): "media",
    ("frame", "src"): "media",
    ("iframe", "src"): "media",
    ("img", "src"): "image",
    ("img", "srcset"): "image",
    ("link", "imagesrcset"): "image",
    ("object", "data"): "media",
    ("source", "src"): "media",
    ("source", "srcset"): "image",
    ("track", "src"): "media",
    ("video", "poster"): "image",
    ("video", "src"): "media",
}
_PURPOSES |= {(tag, "background"): "image" for tag in ("body", "table", "thead", "tbody", "tfoot", "tr", "td", "th")}
# the same in SVG, where `xlink:href` is the old name of `href`
_OF_SVG = {"a": "link", "image": "image", "feimage": "image", "use": "media", "script": "script"}
# elements in which SVG ends
_HTML_INSIDE_SVG = ("foreignobject", "desc", "title")
# rel of <link> -> the same; a hint that fetches nothing ("" here), and any other (alternate, next, ...) is a "link"
_RELS = {"stylesheet": "stylesheet", "icon": "image", "apple-touch-icon": "image", "mask-icon": "image"}
_RELS |= {"manifest": "media", "preload": "media", "modulepreload": "script", "preconnect": "", "dns-prefetch": ""}
# what a link is for -> how the media type must match, or browsers will not show it
_WANTED = {"page": r"text/html|application/xhtml\+xml", "stylesheet": "text/css", "image": "image/.+"}
_WANTED |= {"script": r"(text|application)/(x-)?javascript"}
# types of <script> that are JavaScript (MIME Sniffing, with no parameters); any other is data, and its src not fetched
_JAVASCRIPT = re.compile(
    r"|module|(application|text)/(x-)?(java|ecma)script|text/(jscript|livescript|javascript1\.[0-5])"
)
# HTML, "shared declarative refresh steps"
_REFRESH = re.compile(r"""\s*[\d.]+\s*(?:[;,]\s*|(?<=\s))(?:url\s*=\s*)?(?:'([^']*)|"([^"]*)|(.+))""", re.I | re.S)


@dataclass(frozen=True)
class Link:
    """A link: the URL of the page it stands on, its text there, where it leads ("" when to no URL), what it is for."""

    page: str
    text: str
    url: str
    purpose: str

    def takes(self, media_type: str, url: str) -> bool:
        """Whether an answer of this type, which came from `url`, is what the link stands for."""
        is_page = self.purpose == "link" and urllib.parse.urlsplit(url).path.endswith(("/", ".html"))
        wanted = _WANTED.get("page" if is_page else self.purpose, ".*")
        return re.fullmatch(wanted, media_type) is not None


def is_html(media_type: str) -> bool:
    return re.fullmatch(_WANTED["page"], media_type) is not None


def declared_charset(head: str) -> str | None:
    """What a page says of its own encoding: <meta charset> or <meta http-equiv="content-type">, whichever is first."""
    for meta in LexborHTMLParser(head).css("meta"):
        if meta.attributes.get("charset"):
            return meta.attributes["charset"]
        if (meta.attributes.get("http-equiv") or "").lower() == "content-type":
            charset = re.search(r"charset\s*=\s*[\"']?([^\s\"';]+)", meta.attributes.get("content") or "", re.I)
            if charset:
                return charset[1]
    return None


def of_html(url: str, text: str) -> Iterator[Link]:
    """The links of the page at `url`, in its order."""
    base, found = _of_document(url, text)
    return _resolved(url, base, found)


def _of_document(url: str, text: str) -> tuple[str, list[tuple[str, str]]]:
    """What a document's links are relative to, and its links: (purpose, link as written)."""
    tree, base, found = LexborHTMLParser(text), "", list[tuple[str, str]]()
    for node in tree.root.traverse() if tree.root is not None else ():
        given = {name.lower(): (value or "").strip() for name, value in node.attributes.items()}
        if node.tag == "base" and not base and "href" in given:
            base = _joined(url, given["href"])
            if urllib.parse.urlsplit(base).scheme not in ("http", "https"):
                base = url  # browsers go without one that is no URL, or of data: or javascript:
        if node.tag == "iframe" and "srcdoc" in given:
            found.extend(_of_document(url, given.pop("srcdoc"))[1])
            given.pop("src", None)  # is not fetched then
        found.extend(_of_element(node, given))
    return base or url, found


def of_css(url: str, text: str) -> Iterator[Link]:
    """The links of the stylesheet at `url`."""
    return _resolved(url, url, _of_stylesheet(text))


def _resolved(page: str, base: str, found: Iterable[tuple[str, str]]) -> Iterator[Link]:
    for purpose, text in found:
        url = _joined(base, text)
        if not url:
            yield Link(page, text, "", purpose)
        elif urllib.parse.urlsplit(url).scheme in ("http", "https"):
            yield Link(page, text, urllib.parse.urldefrag(url).url, purpose)


def _joined(base: str, text: str) -> str:
    """Where a link leads, as browsers see it; "" when to no URL."""
    try:
        url = str(ada_url.join_url(base, text))
        return url if urllib.parse.urlsplit(url).port != 0 else ""
    except ValueError:
        return ""


# -- HTML ------------------------------------------------------------------------------------------------------------


def _of_element(node: LexborNode, given: dict[str, str]) -> Iterator[tuple[str, str]]:
    """What one element links to: (purpose, link as written)."""
    tag = (node.tag or "").lower()
    if tag == "style":
        yield from _of_stylesheet(node.text())
    if not given:
        return
    if tag in _OF_SVG and _in_svg(node):
        href = given.get("href", given.get("xlink:href"))
        if href is not None:
            yield _OF_SVG[tag], href
    elif tag == "link" and "href" in given:
        rels = given.get("rel", "").lower().split()
        purpose = next((_RELS[rel] for rel in rels if rel in _RELS), "link")
        if purpose:
            yield purpose, given["href"]
    elif tag == "script" and "src" in given and _JAVASCRIPT.fullmatch(given.get("type", "").lower()):
        yield "script", given["src"]
    elif tag == "input" and "src" in given and given.get("type", "").lower() == "image":
        yield "image", given["src"]
    elif tag == "meta" and given.get("http-equiv", "").lower() == "refresh":
        there = _REFRESH.match(given.get("content", ""))
        yield from (("link", url.strip()) for url in (there.groups() if there else ()) if url)
    for name, value in given.items():
        purpose = _PURPOSES.get((tag, name), "")
        if purpose and not (tag == "a" and _in_svg(node)):
            yield from ((purpose, url) for url in (_of_srcset(value) if name.endswith("srcset") else [value]))
    if given.get("style"):
        yield from _of_tokens(tinycss2.parse_component_value_list(given["style"]))


def _in_svg(node: LexborNode) -> bool:
    above = node.parent
    while above is not None:
        tag = (above.tag or "").lower()
        if tag == "svg" or tag in _HTML_INSIDE_SVG:
            return tag == "svg"
        above = above.parent
    return False


def _of_srcset(value: str) -> Iterator[str]:
    """URLs of a list of image candidates: what follows a URL, up to a comma outside of parentheses, describes it (HTML,
    "parsing a srcset attribute")."""
    rest = value
    while rest := rest.lstrip(" \t\n\f\r,"):
        url, *behind = re.split(r"[ \t\n\f\r]", rest, maxsplit=1)
        rest = behind[0] if behind else ""
        if url.endswith(","):
            url = url.rstrip(",")
        else:
            described = re.match(r"(?:[^,(]|\([^)]*\)?)*", rest)
            rest = rest[described.end() :] if described else rest
        if url:
            yield url


# -- CSS -------------------------------------------------------------------------------------------------------------


def _of_stylesheet(text: str) -> Iterator[tuple[str, str]]:
    may_import = True  # what stands behind other rules is none, and browsers pass it over
    for rule in tinycss2.parse_stylesheet(text, skip_comments=True, skip_whitespace=True):
        if rule.type == "at-rule" and rule.lower_at_keyword == "import" and may_import:
            first = next((token for token in rule.prelude if token.type not in ("whitespace", "comment")), None)
            yield from (("stylesheet", url) for url in _urls(first))
        elif rule.type == "qualified-rule" or (rule.type == "at-rule" and rule.content is not None):
            may_import = False
            yield from _of_tokens(rule.content)
        elif rule.type == "at-rule" and rule.lower_at_keyword == "namespace":
            may_import = False


def _of_tokens(tokens: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """URLs anywhere in a block: of url(), src() and of the strings of image-set()."""
    for token in tokens:
        if token.type == "url" or (token.type == "function" and token.lower_name in ("url", "src")):
            yield from (("media", url) for url in _urls(token))
            continue
        inside = getattr(token, "arguments", None) or getattr(token, "content", None) or ()
        if token.type == "function" and token.lower_name in ("image-set", "-webkit-image-set"):
            yield from (("image", it.value) for it in inside if it.type == "string")
        yield from _of_tokens(inside)


def _urls(token: Any) -> Iterator[str]:
    """The URL of a string, url(...) or url("...") token; none of a function whose argument is no string."""
    if token is not None and token.type in ("string", "url"):
        yield token.value
    elif token is not None and token.type == "function" and token.lower_name in ("url", "src"):
        yield from [it.value for it in token.arguments if it.type == "string"][:1]
