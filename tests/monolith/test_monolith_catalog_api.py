"""The catalogue's API as a client sees it."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings
from rest_framework.test import APIClient

from monolith.accounts.models import User
from monolith.catalog import services
from monolith.catalog.models import Category, Product, ProductImage, Review

pytestmark = pytest.mark.django_db

MakeProduct = Callable[..., Product]


def slugs(api: APIClient, query: str) -> list[str]:
    response = api.get(f"/api/products/?{query}")
    assert response.status_code == 200, response.content
    return [product["slug"] for product in response.json()["results"]]


@pytest.fixture
def tree() -> dict[str, Category]:
    home = Category.objects.create(slug="home", name="Home", position=2)
    kitchen = Category.objects.create(slug="kitchen", name="Kitchen", parent=home)
    cups = Category.objects.create(slug="cups", name="Cups", parent=kitchen)
    garden = Category.objects.create(slug="garden", name="Garden", position=1)
    return {"home": home, "kitchen": kitchen, "cups": cups, "garden": garden}


class TestShape:
    def test_a_product_in_a_list(self, api: APIClient, make_product: MakeProduct, shopper: User) -> None:
        made = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
        product = make_product(price="1234.50", released_on=date(2024, 5, 6), created_at=made)
        Product.objects.filter(pk=product.pk).update(updated_at=made + timedelta(microseconds=7))
        ProductImage.objects.create(product=product, image="products/b.webp", position=2)
        ProductImage.objects.create(product=product, image="products/a.webp", position=1)
        for rating, user in ((5, shopper), (4, User.objects.create_user("b@shop.test", full_name="B"))):
            services.write_review(product=product, author=user, rating=rating, title="t")
        body = api.get("/api/products/").json()
        assert body == {
            "count": 1,
            "next": None,
            "previous": None,
            "results": [
                {
                    "id": product.pk,
                    "sku": "THI-001",
                    "slug": "thing-1",
                    "url": "http://testserver/api/products/thing-1/",
                    "name": "Thing 1",
                    "brand": "Alderwick",
                    "price": "1234.50",
                    "currency": "EUR",
                    "category": {"id": product.category_id, "slug": "things", "name": "Things"},
                    "image": "http://testserver/media/products/a.webp",
                    "rating": "4.50",
                    "review_count": 2,
                    "released_on": "2024-05-06",
                    "created_at": "2025-01-02T03:04:05Z",
                    "updated_at": "2025-01-02T03:04:05.000007Z",
                }
            ],
        }

    def test_a_product_on_its_own_has_more(self, api: APIClient, make_product: MakeProduct) -> None:
        make_product(description="Long.", attributes={"colour": "crème", "sizes": [1, 2.5]}, weight_kg="1.25")
        body = api.get("/api/products/thing-1/").json()
        assert (body["description"], body["weight_kg"]) == ("Long.", "1.250")
        assert body["attributes"] == {"colour": "crème", "sizes": [1, 2.5]}
        assert (body["images"], body["image"], body["rating"], body["review_count"]) == ([], None, None, 0)

    def test_inactive_products_are_not_there(
        self, api: APIClient, make_product: MakeProduct, staff: User
    ) -> None:
        make_product(is_active=False)
        api.force_login(staff)
        assert api.get("/api/products/").json()["count"] == 0
        assert api.get("/api/products/thing-1/").status_code == 404
        assert api.get("/api/products/thing-1/reviews/").status_code == 404

    def test_hidden_reviews_do_not_count(
        self, api: APIClient, make_product: MakeProduct, shopper: User
    ) -> None:
        review = services.write_review(product=make_product(), author=shopper, rating=1, title="t")
        Review.objects.filter(pk=review.pk).update(is_approved=False)
        product = api.get("/api/products/thing-1/").json()
        assert (product["rating"], product["review_count"]) == (None, 0)
        assert api.get("/api/products/thing-1/reviews/").json()["count"] == 0


class TestFilters:
    def test_category_includes_all_below(
        self, api: APIClient, make_product: MakeProduct, tree: dict[str, Category]
    ) -> None:
        for name, category in tree.items():
            make_product(slug=f"in-{name}", category=category)
        assert set(slugs(api, "category=home")) == {"in-home", "in-kitchen", "in-cups"}
        assert set(slugs(api, "category=cups")) == {"in-cups"}

    def test_price_brand_and_date(self, api: APIClient, make_product: MakeProduct) -> None:
        make_product(price="5.00", released_on=date(2024, 1, 1))
        make_product(price="10.00", brand="Birchmoor", released_on=date(2024, 6, 1))
        make_product(price="20.00")
        assert set(slugs(api, "min_price=10")) == {"thing-2", "thing-3"}
        assert set(slugs(api, "min_price=5&max_price=10.00")) == {"thing-1", "thing-2"}
        assert slugs(api, "brand=Birchmoor") == ["thing-2"]
        assert set(slugs(api, "released_after=2024-01-01")) == {"thing-1", "thing-2"}
        assert slugs(api, "released_after=2024-01-02") == ["thing-2"]

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("min_price=cheap", "min_price"),
            ("max_price=NaN", "max_price"),
            ("released_after=yesterday", "released_after"),
            ("category=nowhere", "category"),
            ("search=a%00b", "search"),
            ("brand=%00", "brand"),
        ],
    )
    def test_a_bad_value_names_its_field(self, api: APIClient, query: str, field: str) -> None:
        response = api.get(f"/api/products/?{query}")
        assert response.status_code == 400
        assert list(response.json()) == [field]

    def test_search_ranks_name_over_brand_over_description(
        self, api: APIClient, make_product: MakeProduct
    ) -> None:
        make_product(slug="described", description="Goes well with a lantern.")
        make_product(slug="branded", brand="Lantern")
        make_product(slug="named", name="Storm Lanterns")
        make_product(slug="other", name="Mug")
        assert slugs(api, "search=lantern") == ["named", "branded", "described"]
        assert slugs(api, "search=lantern&ordering=created_at") == ["described", "branded", "named"]

    def test_search_understands_quotes_and_minus(self, api: APIClient, make_product: MakeProduct) -> None:
        make_product(slug="blue", name="Blue Tea Pot")
        make_product(slug="red", name="Red Tea Pot")
        make_product(slug="odd", name="Pot for Tea")
        assert set(slugs(api, "search=%22tea+pot%22")) == {"blue", "red"}
        assert set(slugs(api, "search=tea+-blue")) == {"red", "odd"}
        assert slugs(api, "search=") != []


class TestOrderAndPages:
    def test_every_order_has_a_tiebreak_and_unrated_come_last(
        self, api: APIClient, make_product: MakeProduct, shopper: User
    ) -> None:
        same = datetime(2025, 1, 1, tzinfo=UTC)
        products = [make_product(name="Same", price="1.00", created_at=same) for _ in range(5)]
        services.write_review(product=products[3], author=shopper, rating=2, title="t")
        services.write_review(product=products[1], author=shopper, rating=4, title="t")
        in_order = [product.slug for product in products]
        for name in ("price", "-price", "name", "-name", "created_at", "-created_at"):
            assert slugs(api, f"ordering={name}") == in_order
        rest = ["thing-1", "thing-3", "thing-5"]
        assert slugs(api, "ordering=rating") == ["thing-4", "thing-2", *rest]
        assert slugs(api, "ordering=-rating") == ["thing-2", "thing-4", *rest]

    def test_newest_first_without_a_wish_and_unknown_wishes_are_ignored(
        self, api: APIClient, make_product: MakeProduct
    ) -> None:
        now = datetime(2025, 1, 1, tzinfo=UTC)
        for days in (1, 3, 2):
            make_product(created_at=now + timedelta(days=days))
        assert slugs(api, "") == ["thing-2", "thing-3", "thing-1"] == slugs(api, "ordering=search,password")

    def test_pages_join_without_gap_or_overlap(self, api: APIClient, make_product: MakeProduct) -> None:
        for _ in range(7):
            make_product(stock=0)
        url, seen = "/api/products/?page_size=3&ordering=price&brand=Alderwick", []
        while url:
            body = api.get(url).json()
            assert body["count"] == 7
            seen += [product["slug"] for product in body["results"]]
            url = body["next"]
        assert seen == [f"thing-{number}" for number in range(1, 8)]
        assert "page=2" in api.get("/api/products/?page_size=3&page=3").json()["previous"]

    @pytest.mark.parametrize("page", ["0", "3", "x", "-1"])
    def test_a_page_that_is_not_there(self, api: APIClient, make_product: MakeProduct, page: str) -> None:
        make_product()
        response = api.get(f"/api/products/?page={page}")
        assert (response.status_code, response.json()) == (404, {"detail": "Invalid page."})

    def test_page_size_has_a_limit(self, api: APIClient, make_product: MakeProduct) -> None:
        for _ in range(30):
            make_product(stock=0)
        assert len(api.get("/api/products/").json()["results"]) == 24
        assert len(api.get("/api/products/?page_size=1000").json()["results"]) == 30
        assert len(api.get("/api/products/?page_size=none").json()["results"]) == 24


class TestCategories:
    def test_the_tree_counts_what_is_below(
        self, api: APIClient, make_product: MakeProduct, tree: dict[str, Category]
    ) -> None:
        make_product(category=tree["cups"])
        make_product(category=tree["home"])
        make_product(category=tree["cups"], is_active=False)
        Category.objects.get(slug="things").delete()
        garden, home = api.get("/api/categories/").json()
        assert (garden["slug"], garden["product_count"], garden["children"]) == ("garden", 0, [])
        assert (home["slug"], home["product_count"]) == ("home", 2)
        assert home["children"][0]["children"][0] == {
            "id": tree["cups"].pk,
            "slug": "cups",
            "name": "Cups",
            "product_count": 1,
            "children": [],
        }

    def test_one_category_knows_its_way(self, api: APIClient, tree: dict[str, Category]) -> None:
        body = api.get("/api/categories/kitchen/").json()
        assert [crumb["slug"] for crumb in body["breadcrumbs"]] == ["home"]
        assert [child["slug"] for child in body["children"]] == ["cups"]
        assert api.get("/api/categories/nowhere/").status_code == 404


class TestReviews:
    def test_newest_first(
        self, api: APIClient, make_product: MakeProduct, make_user: Callable[..., User]
    ) -> None:
        product = make_product()
        for title in ("first", "second", "third"):
            services.write_review(product=product, author=make_user(), rating=3, title=title)
        Review.objects.update(created_at=datetime(2025, 1, 1, tzinfo=UTC))
        body = api.get("/api/products/thing-1/reviews/?page_size=2").json()
        assert [review["title"] for review in body["results"]] == ["third", "second"]
        assert body["results"][0]["author_name"] == "Hazel B."

    def test_a_shopper_writes_once(self, api: APIClient, make_product: MakeProduct, shopper: User) -> None:
        make_product()
        api.force_login(shopper)
        url, review = "/api/products/thing-1/reviews/", {"rating": 4, "title": "Good", "body": "Yes."}
        created = api.post(url, review)
        assert created.status_code == 201
        assert created.json()["author_name"] == "Hazel B."
        again = api.post(url, review)
        assert (again.status_code, again.json()["code"]) == (400, "already_reviewed")
        assert api.post(url, {"rating": 6, "title": "x"}).json().keys() == {"rating"}
        assert Review.objects.count() == 1

    def test_strangers_may_not(self, api: APIClient, make_product: MakeProduct) -> None:
        make_product()
        assert api.post("/api/products/thing-1/reviews/", {"rating": 4, "title": "x"}).status_code == 403

    def test_the_name_shown_is_that_of_the_time_of_writing(
        self, api: APIClient, make_product: MakeProduct, shopper: User
    ) -> None:
        services.write_review(product=make_product(), author=shopper, rating=3, title="t")
        User.objects.update(full_name="Somebody Else")
        assert api.get("/api/products/thing-1/reviews/").json()["results"][0]["author_name"] == "Hazel B."

    def test_writing_is_throttled_and_reading_is_not(
        self, api: APIClient, make_product: MakeProduct, shopper: User, settings: Settings
    ) -> None:
        rates = {**settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"], "review": "1/hour"}
        settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "DEFAULT_THROTTLE_RATES": rates}
        for _ in range(2):
            make_product()
        api.force_login(shopper)
        review = {"rating": 4, "title": "x"}
        answers = [api.post(f"/api/products/thing-{n}/reviews/", review).status_code for n in (1, 2)]
        assert answers == [201, 429]
        assert {api.get("/api/products/thing-1/reviews/").status_code for _ in range(5)} == {200}


class TestChanges:
    def test_staff_changes_a_price(self, api: APIClient, make_product: MakeProduct, staff: User) -> None:
        before = make_product(description="d").updated_at
        api.force_login(staff)
        response = api.patch("/api/products/thing-1/", {"price": "7.5"})
        assert response.status_code == 200
        assert (response.json()["price"], response.json()["description"]) == ("7.50", "d")
        product = Product.objects.get()
        assert product.price == Decimal("7.50")
        assert product.updated_at > before

    def test_staff_can_bring_a_product_back(
        self, api: APIClient, make_product: MakeProduct, staff: User
    ) -> None:
        make_product(is_active=False)
        api.force_login(staff)
        assert api.patch("/api/products/thing-1/", {"is_active": True}).status_code == 200
        assert api.get("/api/products/thing-1/").status_code == 200

    def test_a_changed_name_is_found(self, api: APIClient, make_product: MakeProduct, staff: User) -> None:
        make_product()
        api.force_login(staff)
        api.patch("/api/products/thing-1/", {"name": "Umbrella"})
        assert slugs(api, "search=umbrella") == ["thing-1"]

    @pytest.mark.parametrize(
        "changes", [{"price": "-1"}, {"price": "1.234"}, {"attributes": [1]}, {"category": "nowhere"}]
    )
    def test_nonsense_is_refused(
        self, api: APIClient, make_product: MakeProduct, staff: User, changes: dict[str, Any]
    ) -> None:
        make_product()
        api.force_login(staff)
        response = api.patch("/api/products/thing-1/", changes)
        assert (response.status_code, list(response.json())) == (400, list(changes))

    def test_others_may_not(self, api: APIClient, make_product: MakeProduct, shopper: User) -> None:
        make_product()
        assert api.patch("/api/products/thing-1/", {"price": "1"}).status_code == 403
        api.force_login(shopper)
        assert api.patch("/api/products/thing-1/", {"price": "1"}).status_code == 403
        assert Product.objects.get().price == Decimal("10.00")

    def test_a_forged_request_of_staff_is_refused(self, make_product: MakeProduct, staff: User) -> None:
        make_product()
        client = APIClient(enforce_csrf_checks=True)
        client.force_login(staff)
        assert client.patch("/api/products/thing-1/", {"price": "1"}).status_code == 403
        token = client.get("/api/auth/csrf/").json()["csrf_token"]
        assert (
            client.patch("/api/products/thing-1/", {"price": "1"}, HTTP_X_CSRFTOKEN=token).status_code == 200
        )


class TestProtocol:
    def test_headers(self, api: APIClient, make_product: MakeProduct) -> None:
        make_product()
        headers = api.get("/api/products/thing-1/").headers
        assert headers["Content-Type"] == "application/json"
        assert headers["Allow"] == "GET, PATCH, HEAD, OPTIONS"
        assert headers["Vary"] == "Cookie"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"

    def test_head_is_get_without_a_body(self, api: APIClient, make_product: MakeProduct) -> None:
        make_product()
        got, head = api.get("/api/products/"), api.head("/api/products/")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Length"] == got.headers["Content-Length"]

    def test_options_says_the_same_to_everybody(
        self, api: APIClient, make_product: MakeProduct, staff: User
    ) -> None:
        make_product()
        paths = (
            "/api/products/",
            "/api/products/thing-1/",
            "/api/products/thing-1/reviews/",
            "/api/categories/",
        )
        before = [api.options(path).content for path in paths]
        api.force_login(staff)
        assert [api.options(path).content for path in paths] == before
        assert api.options("/api/products/").json() == {
            "name": "Product List",
            "description": "Products of the shop.",
            "renders": ["application/json"],
            "parses": ["application/json"],
        }

    def test_a_missing_slash_is_added(self, api: APIClient) -> None:
        response = api.get("/api/products?page=2&search=a%20b")
        assert (response.status_code, response["Location"]) == (301, "/api/products/?page=2&search=a%20b")

    def test_refusals_are_json(self, api: APIClient, make_product: MakeProduct, staff: User) -> None:
        make_product()
        api.force_login(staff)
        for response, status in (
            (api.put("/api/products/thing-1/"), 405),
            (api.delete("/api/categories/"), 405),
            (api.get("/api/products/", HTTP_ACCEPT="text/html"), 406),
            (api.get("/api/products/?format=xml"), 404),
            (api.get("/api/nothing/here/"), 404),
            (api.post("/api/nothing/"), 404),
        ):
            assert response.status_code == status
            assert response.json().keys() == {"detail"}


class TestQueries:
    @pytest.mark.parametrize(
        ("path", "most"),
        [
            ("/api/products/", 3),
            ("/api/products/?search=thing&category=things&ordering=-rating", 5),
            ("/api/products/thing-1/", 2),
            ("/api/categories/", 2),
            ("/api/products/thing-1/reviews/", 3),
        ],
    )
    def test_the_number_does_not_grow_with_the_rows(
        self, api: APIClient, make_product: MakeProduct, make_user: Callable[..., User], path: str, most: int
    ) -> None:
        counts = []
        for _ in range(2):
            for _ in range(5):
                product = make_product(stock=0)
                ProductImage.objects.create(product=product, image="products/a.webp")
                for _ in range(2):
                    services.write_review(product=product, author=make_user(), rating=3, title="t")
            first = Product.objects.order_by("pk")[0]
            services.write_review(product=first, author=make_user(), rating=3, title="t")
            with CaptureQueriesContext(connection) as queries:
                assert api.get(path).status_code == 200
            counts.append(len(queries))
        assert counts[0] == counts[1] <= most

    def test_reading_touches_the_tables_of_the_catalogue_only(
        self, api: APIClient, make_product: MakeProduct, shopper: User
    ) -> None:
        services.write_review(product=make_product(), author=shopper, rating=3, title="t")
        paths = (
            "/api/products/?search=thing&category=things",
            "/api/products/thing-1/",
            "/api/products/thing-1/reviews/",
            "/api/categories/",
            "/api/categories/things/",
        )
        with CaptureQueriesContext(connection) as queries:
            for path in paths:
                assert api.get(path).status_code == 200
        foreign = ("accounts_", "inventory_", "cart_", "orders_", "payments_", "notifications_", "django_")
        assert [query["sql"] for query in queries if any(name in query["sql"] for name in foreign)] == []
