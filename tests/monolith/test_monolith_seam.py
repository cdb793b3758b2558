"""The seam in the real shop: who is logged in, and how far the log had come."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from django.db import DatabaseError, connection
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from monolith.accounts.models import User
from monolith.catalog.models import Product
from strangler_seam import logs, middleware
from tests.monolith.conftest import PASSWORD

SEAM = "strangler_seam.middleware.SeamMiddleware"


@pytest.fixture
def seam(settings: Settings) -> None:
    settings.MIDDLEWARE = [SEAM, *settings.MIDDLEWARE]


@pytest.fixture
def client(seam: None) -> APIClient:
    """A client of the shop with the seam."""
    return APIClient()


def position() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return int(cursor.fetchone()[0])


def parsed(lsn: str) -> int:
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


@pytest.mark.django_db
class TestUser:
    def test_from_login_to_logout(self, client: APIClient, shopper: User) -> None:
        assert client.get("/api/cart/")["X-Strangler-User"] == ""
        login = client.post("/api/auth/login/", {"email": shopper.email, "password": PASSWORD})
        assert login["X-Strangler-User"] == str(shopper.pk)
        assert client.get("/api/products/")["X-Strangler-User"] == str(shopper.pk)
        assert client.post("/api/auth/logout/")["X-Strangler-User"] == ""

    def test_nothing_is_said_and_nothing_varies_when_nobody_looked(
        self, client: APIClient, shopper: User
    ) -> None:
        client.force_login(shopper)
        for path in ("/health", "/static/admin/css/base.css", "/media/none.webp", "/api/nowhere/"):
            answer = client.get(path)
            assert "X-Strangler-User" not in answer
            assert "Cookie" not in answer.get("Vary", "")

    def test_a_session_that_outlived_its_password_is_nobodys(self, client: APIClient, shopper: User) -> None:
        client.force_login(shopper)
        shopper.set_password("something else entirely")
        shopper.save()
        assert client.get("/api/products/")["X-Strangler-User"] == ""

    def test_a_user_who_is_gone_is_not_named(self, client: APIClient, shopper: User) -> None:
        client.force_login(shopper)
        shopper.delete()
        assert client.get("/api/products/").get("X-Strangler-User") in {None, ""}

    def test_a_view_that_does_not_authenticate_knows_nothing(self, client: APIClient, shopper: User) -> None:
        client.force_login(shopper)
        assert "X-Strangler-User" not in client.post("/api/payments/events/", {})

    def test_it_costs_no_query(
        self,
        client: APIClient,
        make_product: Callable[..., Product],
        django_assert_num_queries: DjangoAssertNumQueries,
    ) -> None:
        make_product()
        with django_assert_num_queries(2):  # the same two as without the seam
            client.get("/api/products/thing-1/")


@pytest.mark.django_db(transaction=True)
class TestPosition:
    def test_after_a_write_the_position_lies_behind_its_commit(
        self, client: APIClient, make_product: Callable[..., Product], shopper: User
    ) -> None:
        make_product()
        client.force_login(shopper)
        before = position()
        answer = client.post("/api/products/thing-1/reviews/", {"rating": 3, "title": "x"})
        assert answer.status_code == 201
        assert before < parsed(answer["X-Strangler-LSN"]) <= position()

    def test_the_session_is_saved_before(
        self, client: APIClient, make_product: Callable[..., Product]
    ) -> None:
        make_product()
        answer = client.post("/api/cart/items/", {"sku": "THI-001"})
        # Whatever this request wrote, its session too, lies before the position: nothing was logged since.
        assert "sessionid" in answer.cookies
        assert position() - parsed(answer["X-Strangler-LSN"]) < 100

    def test_reading_says_nothing(self, client: APIClient) -> None:
        assert "X-Strangler-LSN" not in client.get("/api/products/")

    def test_a_refused_write_has_a_position_too(self, client: APIClient) -> None:
        answer = client.post("/api/checkout/", {})
        assert answer.status_code == 403
        assert "X-Strangler-LSN" in answer

    def test_a_database_that_fails_now_does_not_spoil_the_answer(
        self, client: APIClient, make_product: Callable[..., Product], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_product()

        class Broken:
            vendor = "postgresql"
            in_atomic_block = False

            def cursor(self) -> None:
                raise DatabaseError("gone")

        monkeypatch.setattr(middleware, "connection", Broken())
        answer = client.post("/api/cart/items/", {"sku": "THI-001"})
        assert answer.status_code == 201
        assert "X-Strangler-LSN" not in answer


@pytest.mark.django_db
def test_inside_a_transaction_there_is_no_position(client: APIClient) -> None:
    """This test runs in one; so would a site that wraps whole requests."""
    assert "X-Strangler-LSN" not in client.post("/api/auth/logout/")


@pytest.mark.django_db
def test_without_the_seam_nothing_is_there(api: APIClient) -> None:
    answer = api.post("/api/auth/logout/")
    assert not [name for name in answer.headers if name.lower().startswith("x-strangler")]


def test_log_records_carry_the_id() -> None:
    factory = logging.getLogRecordFactory()
    token = logs.request_id.set("abc")
    try:
        logs.add_request_id_to_records()
        logs.add_request_id_to_records()
        record = logging.getLogger("x").makeRecord("x", logging.INFO, "f", 1, "m", (), None)
        assert record.__dict__["request_id"] == "abc"
    finally:
        logging.setLogRecordFactory(factory)
        logs.request_id.reset(token)
    plain = logging.getLogger("x").makeRecord("x", logging.INFO, "f", 1, "m", (), None)
    assert not hasattr(plain, "request_id")


@pytest.mark.parametrize(("value", "present"), [("1", True), ("0", False)])
def test_one_variable_adds_it(value: str, present: bool) -> None:
    code = (
        "import json; from django.conf import settings as s; import django; django.setup();"
        "print(json.dumps([s.MIDDLEWARE[0], 'strangler_seam' in s.INSTALLED_APPS]))"
    )
    environment = {
        **os.environ,
        "STRANGLER_SEAM": value,
        "DJANGO_SETTINGS_MODULE": "monolith.config.settings",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    first, installed = json.loads(done.stdout)
    assert (first == SEAM, installed) == (present, present)
