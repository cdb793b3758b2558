"""A journey over the storefront's pages: link by link, as somebody does who never heard of an API.

It knows the front page's URL and nothing else; where it goes is what the pages offer: their links, and their
search field for a word that they show. Links that change something, or lead to pages of one's own, are left to
the journeys that mean to go there.
"""

import re
from collections.abc import Sequence
from html import unescape
from random import Random
from urllib.parse import quote_plus

from workshop.traffic.client import Answer
from workshop.traffic.journeys import Journey, Step

FRONT_PAGE = "/"
_LINK = re.compile(rb'<a\s[^>]*?href="(/[^"#]*)"')
_ELSEWHERE = re.compile(r"/(api|admin|static|media)(/|$)|log-?(in|out)|register|cart|checkout|order|account")
_SEARCH = re.compile(rb'<form\s[^>]*?role="search"[^>]*?action="(/[^"]*)"[^>]*>(.*?)</form>', re.DOTALL)
_FIELD = re.compile(rb'<input\s[^>]*?name="(\w+)"')
_TITLE = re.compile(rb"<h[1-3][^>]*>\s*<a\s[^>]*>\s*([^<]+)")
_SEARCHES = 0.25


def stroll(random: Random) -> Journey:
    """The front page and a few pages behind it; now and then a search for something that was seen."""
    page = yield _page(FRONT_PAGE)
    for _ in range(random.randint(2, 4)):
        searches = searches_of(page) if random.random() < _SEARCHES else ()
        ways = searches or links(page)
        if not ways:
            return
        page = yield _page(random.choice(ways))


def links(page: Answer) -> Sequence[str]:
    """Where the links of `page` lead to within the shop, as a visitor may follow them."""
    found = [unescape(raw.decode("utf-8", "replace")) for raw in _LINK.findall(page.body)]
    return [way for way in dict.fromkeys(found) if way.isascii() and not _ELSEWHERE.search(way)]


def searches_of(page: Answer) -> Sequence[str]:
    """Where the search field of `page` leads to for words of the headings that are links; nowhere without one."""
    form = _SEARCH.search(page.body)
    field = _FIELD.search(form.group(2)) if form is not None else None
    if form is None or field is None:
        return ()
    words = (word for title in _TITLE.findall(page.body) for word in unescape(title.decode()).split())
    action = f"{form.group(1).decode()}?{field.group(1).decode()}="
    return [action + quote_plus(word) for word in dict.fromkeys(words) if word.isalpha()]


def _page(path: str) -> Step:
    return Step("page", "GET", path, check=_wants_page, page=True)


def _wants_page(answer: Answer) -> str:
    return "" if b"</html>" in answer.body else "not a whole page"
