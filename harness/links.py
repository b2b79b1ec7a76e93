"""What HTML pages and stylesheets link to, over HTTP; mailto:, data: and the like are passed over."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser

from harness.errors import AnswerNotUnderstood
from harness.http import PORTS, normal

_SRCSET = re.compile(r"[\s,]*(\S*[^\s,])(?:\s[^,]*)?(?:,|$)")
_CSS_PASSED_OVER = re.compile(r"/\*.*?\*/|@namespace[^;]*;", re.S)
_CSS_IMPORT = re.compile(r"@import\s+(?:url\(\s*)?[\"']?([^\"')\s;]+)[^;]*;", re.I)
_CSS_URL = re.compile(r"url\(\s*(?:\"([^\"]*)\"|'([^']*)'|([^\"')\s]*))\s*\)", re.I)

# (element, attribute) -> what the link is for. A "link" is followed by a person's click; all else belongs to the page.
_PURPOSES = {
    ("a", "href"): "link",
    ("area", "href"): "link",
    ("audio", "src"): "media",
    ("embed", "src"): "media",
    ("iframe", "src"): "media",
    ("image", "href"): "image",
    ("img", "src"): "image",
    ("img", "srcset"): "image",
    ("input", "src"): "image",
    ("object", "data"): "media",
    ("script", "src"): "script",
    ("source", "src"): "media",
    ("source", "srcset"): "image",
    ("track", "src"): "media",
    ("video", "poster"): "image",
    ("video", "src"): "media",
}
# rel of <link> -> the same; any other rel (alternate, canonical, next, ...) is a "link"
_RELS = {"stylesheet": "stylesheet", "icon": "image", "apple-touch-icon": "image", "mask-icon": "image"}
_RELS |= {"manifest": "media", "preload": "media", "prefetch": "media", "modulepreload": "script"}
# what a link is for -> how the media type must match, or browsers will not show it
_WANTED = {"page": r"text/html|application/xhtml\+xml", "stylesheet": "text/css", "image": "image/.+"}
_WANTED |= {"script": r"(text|application)/(x-)?javascript"}


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


def of_html(url: str, text: str) -> Iterator[Link]:
    """The links of the page at `url`. Raises AnswerNotUnderstood when no parser takes its text."""
    reader = _Reader()
    try:
        reader.feed(text)
        reader.close()
    except AssertionError as error:  # html.parser, on a malformed <![...
        raise AnswerNotUnderstood(url, text, str(error)) from error
    return _resolved(url, urllib.parse.urljoin(url, reader.base or ""), reader.found)


def of_css(url: str, text: str) -> Iterator[Link]:
    """The links of the stylesheet at `url`."""
    return _resolved(url, url, _found_in_css(text))


def _resolved(page: str, base: str, found: Iterable[tuple[str, str]]) -> Iterator[Link]:
    for purpose, text in found:
        try:
            url = normal(urllib.parse.urljoin(base, text))
        except ValueError:
            yield Link(page, text, "", purpose)
            continue
        if urllib.parse.urlsplit(url).scheme in PORTS:
            yield Link(page, text, url, purpose)


class _Reader(HTMLParser):
    """Collects what a document links to, in its order: (purpose, link as written), and its first <base href>."""

    def __init__(self) -> None:
        super().__init__()
        self.base: str | None = None
        self.found: list[tuple[str, str]] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value.strip() for name, value in attrs if value is not None}
        self._in_style = tag == "style"
        if tag == "base" and "href" in given and self.base is None:
            self.base = given["href"]
        if tag == "link" and "href" in given:
            purposes = [_RELS[rel] for rel in given.get("rel", "").lower().split() if rel in _RELS]
            self.found.append((purposes[0] if purposes else "link", given["href"]))
        for name, value in given.items():
            purpose = _PURPOSES.get((tag, name))
            if purpose and name == "srcset":
                self.found.extend((purpose, url) for url in _SRCSET.findall(value))
            elif purpose:
                self.found.append((purpose, value))
        self.found.extend(_found_in_css(given.get("style", "")))

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.found.extend(_found_in_css(data))

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False


def _found_in_css(text: str) -> Iterator[tuple[str, str]]:
    text = _CSS_PASSED_OVER.sub("", text)
    yield from (("stylesheet", link) for link in _CSS_IMPORT.findall(text))
    yield from (("media", "".join(forms)) for forms in _CSS_URL.findall(_CSS_IMPORT.sub("", text)))
