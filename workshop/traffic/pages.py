"""A journey over the storefront's pages: link by link, as somebody does who never heard of an API.

It knows the front page's URL and nothing else; where it goes is what the pages offer. Links that change
something, or lead to pages of one's own, are left to the journeys that mean to go there.
"""

import re
from collections.abc import Sequence
from html import unescape
from random import Random

from workshop.traffic.client import Answer
from workshop.traffic.journeys import Journey, Step

FRONT_PAGE = "/"
_LINK = re.compile(rb'<a\s[^>]*?href="(/[^"#]*)"')
_ELSEWHERE = re.compile(r"/(api|admin|static|media)(/|$)|log-?(in|out)|register|cart|checkout|order|account")


def stroll(random: Random) -> Journey:
    """The front page and a few pages behind it."""
    page = yield _page(FRONT_PAGE)
    for _ in range(random.randint(2, 4)):
        ways = links(page)
        if not ways:
            return
        page = yield _page(random.choice(ways))


def links(page: Answer) -> Sequence[str]:
    """Where the links of `page` lead to within the shop, as a visitor may follow them."""
    found = [unescape(raw.decode("utf-8", "replace")) for raw in _LINK.findall(page.body)]
    return [way for way in dict.fromkeys(found) if way.isascii() and not _ELSEWHERE.search(way)]


def _page(path: str) -> Step:
    return Step("page", "GET", path, check=_wants_page, page=True)


def _wants_page(answer: Answer) -> str:
    return "" if b"</html>" in answer.body else "not a whole page"
