"""The storefront's pages to look at: what they show, what they escape, what they cost."""

import re
from collections.abc import Callable
from decimal import Decimal
from html import unescape
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from monolith.accounts.models import User
from monolith.catalog import services as catalog
from monolith.catalog.models import Category, Product
from monolith.storefront import wording
from monolith.storefront.listing import PAGE_SIZE
from workshop.traffic.client import Answer
from workshop.traffic.pages import links

pytestmark = pytest.mark.django_db

Make = Callable[..., Product]


def page(client: Client, url: str, *, status: int = 200) -> str:
    """The page as text; it must be a whole one and answer with `status`."""
    answer = client.get(url)
    assert answer.status_code == status, f"{url}: {answer.status_code}"
    text = answer.content.decode()
    assert text.rstrip().endswith("</html>")
    return text


def names(text: str) -> list[str]:
    """Names of the products in the page's lists, in their order."""
    return [unescape(name) for name in re.findall(r'<h3 class="card-name"><a [^>]*>([^<]*)</a>', text)]


@pytest.fixture
def seeded(settings: Settings, drawings: Path) -> None:
    """A shop with a bit of everything."""
    settings.MEDIA_ROOT = drawings
    call_command("seed_shop", products=120, users=12, orders=20, password="pw", stdout=StringIO())


class TestEmptyShop:
    @pytest.mark.parametrize("url", ["/", "/products/", "/search/", "/search/?q=lamp", "/cart/"])
    def test_pages_without_anything_to_show_say_so(self, client: Client, url: str) -> None:
        assert "<h" in page(client, url)


@pytest.mark.usefixtures("seeded")
class TestEveryLink:
    def test_whatever_a_visitor_may_follow_leads_to_a_page(self, client: Client) -> None:
        """Breadth first from the front page, 150 pages: no link of ours is broken."""
        waiting = ["/"]
        visited: set[str] = set()
        for url in waiting:
            if url in visited:
                continue
            answer = client.get(url)
            assert answer.status_code == 200, url
            visited.add(url)
            waiting.extend(links(Answer(status=200, headers=(), body=answer.content)))
            if len(visited) == 150:
                break
        assert len(visited) == 150
        kinds = {url.split("/")[1].partition("?")[0] for url in visited}
        assert kinds >= {"", "category", "product", "products"}

    def test_pictures_and_assets_of_the_page_exist(self, client: Client) -> None:
        text = page(client, "/")
        files = set(re.findall(r'(?:src|href)="(/(?:media|static)/[^"]+)"', text))
        assert {Path(file).suffix for file in files} >= {".webp", ".css", ".svg"}
        for file in files:
            assert client.get(file).status_code == 200, file

    def test_no_page_asks_another_host_or_runs_a_script(self, client: Client) -> None:
        product = Product.objects.filter(is_active=True)[0]
        for url in ("/", "/products/", f"/product/{product.slug}/", "/account/login/"):
            answer = client.get(url)
            text = answer.content.decode()
            assert not re.search(r'(?:src|href|action)="(?:https?:)?//', text), url
            assert "<script" not in text
            assert " style=" not in text, "the content security policy would not apply it"
            assert "default-src 'self'" in answer["Content-Security-Policy"]

    def test_each_page_has_a_title_one_main_heading_and_labels(self, client: Client) -> None:
        product = Product.objects.filter(is_active=True)[0]
        titles = set()
        urls = ("/", "/products/", f"/product/{product.slug}/", "/search/?q=oak", "/cart/", "/account/login/")
        for url in urls:
            text = page(client, url)
            titles.update(re.findall(r"<title>(.*?)</title>", text))
            assert len(re.findall(r"<h1[ >]", text)) == 1, url
            assert 'class="skip"' in text
            for picture in re.findall(r"<img[^>]*>", text):
                assert " alt=" in picture, f"{url}: {picture}"
            labelled = set(re.findall(r'<label[^>]* for="([^"]+)"', text))
            for field in re.findall(r"<(?:input|select|textarea)[^>]*>", text):
                if 'type="hidden"' in field:
                    continue
                (identifier,) = re.findall(r' id="([^"]+)"', field)
                assert identifier in labelled or "aria-label=" in field, f"{url}: {field}"
        assert len(titles) == len(urls)


class TestBrowsing:
    @pytest.fixture
    def shelf(self, make_product: Make) -> dict[str, Product]:
        """Three products in a tree of two categories, one that is sold out, one that is hidden."""
        top = Category.objects.create(slug="light", name="Light")
        below = Category.objects.create(slug="lamps", name="Lamps", parent=top)
        return {
            "lamp": make_product(name="Copper lamp", brand="Alderwick", price=Decimal(90), category=below),
            "bulb": make_product(name="Warm bulb", brand="Birchlow", price=Decimal(5), category=top),
            "torch": make_product(name="Torch", brand="Birchlow", price=Decimal(25), category=top, stock=0),
            "ghost": make_product(name="Ghost lamp", category=below, is_active=False),
        }

    def test_a_category_includes_those_below_it(self, client: Client, shelf: dict[str, Product]) -> None:
        assert set(names(page(client, "/category/light/"))) == {"Copper lamp", "Warm bulb", "Torch"}
        assert names(page(client, "/category/lamps/")) == ["Copper lamp"]

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("sort=price", ["Warm bulb", "Torch", "Copper lamp"]),
            ("sort=-price", ["Copper lamp", "Torch", "Warm bulb"]),
            ("sort=name", ["Copper lamp", "Torch", "Warm bulb"]),
            ("sort=price&min_price=5.01", ["Torch", "Copper lamp"]),
            ("sort=price&max_price=25", ["Warm bulb", "Torch"]),
            ("sort=price&brand=Birchlow", ["Warm bulb", "Torch"]),
            ("sort=price&brand=Birchlow&brand=Alderwick", ["Warm bulb", "Torch", "Copper lamp"]),
            ("sort=price&in_stock=on", ["Warm bulb", "Copper lamp"]),
            ("sort=price&min_price=dear&page=none", ["Warm bulb", "Torch", "Copper lamp"]),
            ("sort=price&page=99999999999999999999", ["Warm bulb", "Torch", "Copper lamp"]),
        ],
    )
    def test_lists_are_narrowed_and_sorted(
        self, client: Client, shelf: dict[str, Product], query: str, expected: list[str]
    ) -> None:
        assert names(page(client, f"/category/light/?{query}")) == expected

    def test_a_filter_that_makes_no_sense_is_said_to(self, client: Client, shelf: dict[str, Product]) -> None:
        assert "errorlist" in page(client, "/products/?min_price=dear")
        assert "errorlist" in page(client, "/products/?min_price=9&max_price=3")

    def test_products_by_rating(
        self, client: Client, shelf: dict[str, Product], make_user: Callable[..., User]
    ) -> None:
        for name, rating in (("lamp", 3), ("bulb", 5)):
            catalog.write_review(product=shelf[name], author=make_user(), rating=rating, title="So")
        assert names(page(client, "/category/light/?sort=rating")) == ["Warm bulb", "Copper lamp", "Torch"]
        assert names(page(client, "/category/light/?rating=4")) == ["Warm bulb"]

    def test_pages_cut_the_list_without_overlap(self, client: Client, make_product: Make) -> None:
        for _ in range(PAGE_SIZE + 3):
            make_product(stock=0)
        first, second = (names(page(client, f"/products/?sort=price&page={n}")) for n in (1, 2))
        assert (len(first), len(second)) == (PAGE_SIZE, 3)
        assert not set(first) & set(second)

    def test_search_counts_ranks_and_offers_other_ways(
        self, client: Client, shelf: dict[str, Product]
    ) -> None:
        found = page(client, "/search/?q=lamp")
        assert names(found) == ["Copper lamp"]
        assert "1 product" in found
        nothing = page(client, "/search/?q=zeppelin")
        assert "0 products" in nothing
        assert "/category/light/" in nothing

    @pytest.mark.parametrize("words", ["%00", "x" * 300, "%22", "%27%3B--", "a%20%26%20%7C", "%F0%9F%90%99"])
    def test_search_survives_what_people_paste(self, client: Client, words: str) -> None:
        page(client, f"/search/?q={words}")

    @pytest.mark.parametrize("url", ["/category/none/", "/product/none/", "/nowhere/", "/orders-of-others"])
    def test_what_does_not_exist_is_a_404_page_of_the_shop(self, client: Client, url: str) -> None:
        assert wording.SHOP_NAME in page(client, url, status=404)

    def test_hidden_products_have_no_page(self, client: Client, shelf: dict[str, Product]) -> None:
        page(client, f"/product/{shelf['ghost'].slug}/", status=404)

    def test_a_fault_of_ours_is_a_page_that_leads_to_the_log(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> None:
            raise RuntimeError("secret detail")

        monkeypatch.setattr("monolith.catalog.selectors.category_tree", fail)
        client.raise_request_exception = False
        answer = client.get("/", headers={"X-Request-ID": "complaint-7"})
        text = answer.content.decode()
        assert answer.status_code == 500
        assert "complaint-7" in text
        assert "secret detail" not in text
        assert text.rstrip().endswith("</html>")

    def test_programs_get_no_page(self, client: Client) -> None:
        answer = client.get("/api/nowhere/")
        assert (answer.status_code, answer["Content-Type"]) == (404, "application/json")


class TestProduct:
    def test_it_says_what_a_shopper_wants_to_know(
        self, client: Client, make_product: Make, make_user: Callable[..., User]
    ) -> None:
        product = make_product(
            price=Decimal("1290.50"),
            weight_kg=Decimal("2.500"),
            attributes={"colour": "sand", "dimensions_cm": {"width": 3}, "features": ["a", "b"], "wet": True},
            stock=3,
        )
        for rating in (5, 4, 4):
            catalog.write_review(product=product, author=make_user(), rating=rating, title="Firm", body="Yes")
        text = page(client, "/product/thing-1/")
        for piece in ("€1,290.50", "Only 3 left", "Dimensions (cm)", "width 3", "a, b", "2.5 kg", "THI-001"):
            assert piece in text
        assert "3 reviews" in text
        assert "4.3 out of 5 stars" in text

    @pytest.mark.parametrize(
        ("weight", "text"), [("10.000", "10 kg"), ("100.000", "100 kg"), ("0.050", "0.05 kg")]
    )
    def test_weights_are_written_as_people_do(
        self, client: Client, make_product: Make, weight: str, text: str
    ) -> None:
        make_product(weight_kg=Decimal(weight))
        assert f"<td>{text}</td>" in page(client, "/product/thing-1/")

    def test_what_is_sold_out_cannot_be_put_into_the_cart(self, client: Client, make_product: Make) -> None:
        make_product(stock=0)
        text = page(client, "/product/thing-1/")
        assert "Sold out" in text
        assert "Add to cart" not in text

    def test_what_people_wrote_is_text_not_markup(
        self, client: Client, make_product: Make, make_user: Callable[..., User]
    ) -> None:
        evil = '<script>alert("1")</script>'
        product = make_product(
            name=evil, brand=evil, description=evil, attributes={evil: evil, "list": [evil]}
        )
        catalog.write_review(
            product=product, author=make_user(full_name=evil), rating=1, title=evil, body=evil
        )
        for url in ("/", "/products/", f"/products/?brand={evil}", f"/search/?q={evil}", "/product/thing-1/"):
            text = page(client, url)
            assert "<script" not in text, url
            assert "alert(&quot;1&quot;)" in text, url

    def test_reviews_come_in_pages(
        self, client: Client, make_product: Make, make_user: Callable[..., User]
    ) -> None:
        product = make_product()
        for number in range(12):
            catalog.write_review(product=product, author=make_user(), rating=5, title=f"Review no. {number}.")
        first, second = page(client, "/product/thing-1/"), page(client, "/product/thing-1/?page=2")
        assert "Review no. 11." in first
        assert "Review no. 0." not in first
        assert "Review no. 0." in second


class TestQueries:
    """The number of queries does not grow with what is shown."""

    def cost(self, client: Client, url: str) -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            page(client, url)
        return len(queries)

    @pytest.mark.parametrize(
        ("url", "most"),
        [
            ("/", 11),
            ("/products/", 9),
            ("/category/things/", 9),
            ("/search/?q=thing", 9),
            ("/product/thing-1/", 11),
        ],
    )
    def test_of_lists_and_products(
        self, client: Client, make_product: Make, make_user: Callable[..., User], url: str, most: int
    ) -> None:
        def stock_up(count: int) -> None:
            for _ in range(count):
                product = make_product()
                for author in authors:
                    catalog.write_review(product=product, author=author, rating=5, title="Good")

        authors = [make_user() for _ in range(4)]
        stock_up(3)
        few = self.cost(client, url)
        stock_up(12)
        assert self.cost(client, url) == few
        assert few <= most

    def test_of_the_cart(self, client: Client, make_product: Make) -> None:
        costs = []
        for _ in range(2):
            for _ in range(4):
                client.post("/cart/", {"sku": make_product().sku, "quantity": 1})
            client.get("/cart/")  # shows the messages of the changes
            costs.append(self.cost(client, "/cart/"))
        assert costs[0] == costs[1] <= 10

    @pytest.mark.usefixtures("seeded")
    def test_of_orders(self, client: Client) -> None:
        users = {user: user.orders.count() for user in User.objects.filter(orders__isnull=False).distinct()}
        costs = set()
        for user in users:
            client.force_login(user)
            costs.add(self.cost(client, "/orders/"))
        assert len({*users.values()}) > 1
        assert len(costs) == 1

    def test_a_404_asks_neither_session_nor_database(self, client: Client) -> None:
        with CaptureQueriesContext(connection) as queries:
            answer = client.get("/nowhere/")
        assert answer.status_code == 404
        assert len(queries) == 0
        assert "Cookie" not in answer.get("Vary", "")
