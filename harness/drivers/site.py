"""The driver of a site: what it answers, where its links lead, and whether it serves the files of a folder."""

from __future__ import annotations

import re
import time
import urllib.parse
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import requests
import webencodings

from harness.errors import AnswerNotUnderstood, Misconfigured, PlatformWrong
from harness.model import links
from harness.model.links import Link
from harness.seams.http import LeadsAstray, SiteUnreachable, normal
from harness.seams.patience import patience

# Seconds for a walk through a whole site, and what each file that was deployed adds to them. 3000 pages take a few.
CRAWL_LIMIT = 300.0
CRAWL_LIMIT_PER_FILE = 0.1

_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.I)


@dataclass(frozen=True)
class Page:
    """One answer: `url` is where redirects ended, `content_type` the header as it came."""

    url: str
    status: int
    content_type: str
    body: bytes

    @property
    def media_type(self) -> str:
        """Such as "text/html"; empty when the answer has none."""
        return self.content_type.partition(";")[0].strip().lower()

    @property
    def text(self) -> str:
        """The body, read as browsers do: as its byte order mark says, else the header, else its own <meta>, else as
        UTF-8. In a label that nobody knows there is no sense."""
        declared = _CHARSET.search(self.content_type)
        label = declared[1] if declared else None
        if label is None and links.is_html(self.media_type):
            label = links.declared_charset(self.body[:1024].decode("ascii", "replace"))
            label = "utf-8" if (label or "").lower().startswith("utf-16") else label  # it was read as ASCII
        known = webencodings.lookup(label or "utf-8") or webencodings.UTF8
        return str(webencodings.decode(self.body, known)[0])


class PagesWithoutEnd(PlatformWrong):
    """A walk through a site found no end: it makes up pages, or is too slow."""

    def __init__(self, name: str, pages: int, url: str, known_by: str) -> None:
        super().__init__(
            f"the links of site {name} have no end: it answered for {pages} pages by {url}, and {known_by}",
            expected="an end",
            seen=f"{pages} pages, and further links",
            where=url,
        )


@dataclass(frozen=True)
class BrokenLink:
    """A link that does not give what it stands for: on which page, as written there, and what came instead."""

    page: str
    link: str
    status: int | str

    def __str__(self) -> str:
        return f"{self.page}: {self.link}: {self.status}"


class Site:
    """One site behind the entry point: `name` for people, `domain` for the Host header."""

    def __init__(self, name: str, domain: str, session: requests.Session) -> None:
        self.name = name
        self.domain = domain.lower()
        self._home = f"http://{self.domain}/"
        self._session = session

    def fetch(self, path: str = "/") -> Page:
        """What the site answers for a path, after redirects inside the site; any status is an answer.

        Raises SiteUnreachable, and LeadsAstray when a redirect leaves the site, even for the other site.
        """
        return self._get(self._home + path.removeprefix("/"))

    def version(self) -> str:
        """What /version.txt says: one word of 8 to 64 letters, digits and ._- as plain text."""
        page = self.fetch("/version.txt")
        if page.status != 200 or page.media_type != "text/plain":
            reason = f"status {page.status} and type {page.content_type or 'unknown'}, not 200 and text/plain"
            raise AnswerNotUnderstood(page.url, page.text, reason)
        if not re.fullmatch(r"[0-9A-Za-z._-]{8,64}\r?\n?", page.text):
            raise AnswerNotUnderstood(page.url, page.text, "not one line with one word of 8 to 64 of 0-9 A-Z a-z . _ -")
        return page.text.strip()

    def differences(self, folder: Path) -> list[str]:
        """One line for each file of `folder` that the site does not serve byte for byte; empty when it serves all.

        An index.html is asked for under its folder's path too. 404.html may come with status 404. Raises Misconfigured
        when there is no file to compare with.
        """
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            raise Misconfigured(f"{folder} has no files to compare the site {self.name} with")
        lines = []
        for file in files:
            path = "/" + urllib.parse.quote(file.relative_to(folder).as_posix())
            statuses = (200, 404) if path == "/404.html" else (200,)
            paths = [path, path.removesuffix("index.html")] if file.name == "index.html" else [path]
            lines += [f"{path}: {fault}" for path in paths if (fault := self._fault(path, file.read_bytes(), statuses))]
        return lines

    def _fault(self, path: str, wanted: bytes, statuses: Collection[int]) -> str:
        try:
            page = self.fetch(path)
        except LeadsAstray as astray:
            return astray.how
        if page.status not in statuses:
            return f"status {page.status}"
        if page.body == wanted:
            return ""
        pairs = enumerate(zip(page.body, wanted, strict=False))
        first = next((at for at, (a, b) in pairs if a != b), min(len(page.body), len(wanted)))
        return f"{len(page.body)} bytes served, {len(wanted)} in the file, different from byte {first} on"

    def _get(self, url: str) -> Page:
        response = self._session.get(url)
        if not self._has(response.url):
            raise LeadsAstray(url, f"leads outside: {response.url}")
        return Page(
            normal(response.url), response.status_code, response.headers.get("Content-Type", ""), response.content
        )

    def _has(self, url: str) -> bool:
        return urllib.parse.urlsplit(url).hostname == self.domain

    def walk(self, files: int | None = None) -> tuple[list[Page], list[BrokenLink]]:
        """Every answer that the links from "/" lead to inside the site, and every link that does not end at status 200
        in a fitting type; breadth first, each URL asked for once.

        Pages and what belongs to them (images, stylesheets and what those import, ...), whatever their status. The
        same host under another scheme or port is inside. Hyperlinks to other hosts are passed over; what a page loads
        from another host is broken ("leads outside"), and so is a redirect out of the site.

        A site of any size is walked whole; one that makes up pages has no end, and is known by that: it has more pages
        than the `files` that were deployed account for. Any walk ends after CRAWL_LIMIT, longer by CRAWL_LIMIT_PER_FILE
        for each of `files`. Raises PagesWithoutEnd then, which says which of both it was, and SiteUnreachable when the
        site stops answering.
        """
        queue = deque([Link("entry point", "/", self._home, "page")])
        answers: dict[str, Page | str] = {}
        broken = []
        limit = (CRAWL_LIMIT + CRAWL_LIMIT_PER_FILE * (files or 0)) * patience()
        ends = time.monotonic() + limit
        paths: set[str] = set()
        bodies: set[int] = set()
        while queue:
            link = queue.popleft()
            inside = self._has(link.url)
            if inside and link.url not in answers:
                answer = answers[link.url] = self._answer(link.url)
                if isinstance(answer, Page):
                    answers.setdefault(answer.url, answer)
                    queue.extend(_links_of(answer))
                    if answer.status == 200 and links.is_html(answer.media_type):
                        paths.add(urllib.parse.urlsplit(answer.url).path)
                        bodies.add(hash(answer.body))
                # a file is a page under its own path, and an index.html under its folder's too; but it is one page
                made_up = files is not None and (len(paths) > 2 * files + 1 or len(bodies) > files + 1)
                if made_up or time.monotonic() > ends:
                    known_by = f"{files} files were deployed" if made_up else f"that took {limit:g} s"
                    raise PagesWithoutEnd(self.name, max(len(paths), len(bodies)), link.url, known_by)
            status = _judge(link, answers[link.url]) if inside else _judge_outside(link)
            if status:
                broken.append(BrokenLink(link.page, link.text, status))
        found = {answer.url: answer for answer in answers.values() if isinstance(answer, Page)}
        return list(found.values()), list(dict.fromkeys(broken))

    def _answer(self, url: str) -> Page | str:
        """A page, or why there is none. When the site itself is out of reach, no further link is worth a time-out."""
        try:
            return self._get(url)
        except LeadsAstray as astray:
            return astray.how
        except SiteUnreachable as unreachable:
            if url.startswith(self._home):
                raise
            return f"unreachable: {unreachable.seen}"


def _links_of(page: Page) -> Iterator[Link]:
    """Those of a page or stylesheet, each URL in the one form that it is asked for."""
    found: Iterable[Link] = ()
    if page.status == 200 and links.is_html(page.media_type):
        found = links.of_html(page.url, page.text)
    if page.status == 200 and page.media_type == "text/css":
        found = links.of_css(page.url, page.text)
    return (replace(link, url=normal(link.url)) if link.url else link for link in found)


def _judge(link: Link, answer: Page | str) -> int | str:
    """What is wrong with the answer to a link; empty when nothing is."""
    if isinstance(answer, str):
        return answer
    if answer.status != 200:
        return answer.status
    return "" if link.takes(answer.media_type, answer.url) else f"wrong type: {answer.content_type or 'none'}"


def _judge_outside(link: Link) -> str:
    if not link.url:
        return "not a URL"
    return "" if link.purpose == "link" else f"leads outside: {link.url}"
