"""The project as a whole: settings, logs, files, health, admin, API description."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib import admin
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import OperationalError
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from monolith.accounts.models import User
from monolith.catalog.models import Product
from monolith.config import environment, health, logs
from monolith.config.database.base import DatabaseWrapper
from workshop.postgres import free_port

OURS = {"accounts", "catalog", "inventory", "cart", "orders", "payments", "notifications"}


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process whose environment has no SHOP_ variable but these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SHOP_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**clean, **variables, "DJANGO_SETTINGS_MODULE": "monolith.config.settings"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class TestSettings:
    def test_nothing_is_needed_to_import_them(self) -> None:
        done = python("import django; django.setup(); import monolith.config.urls")
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_server_without_a_secret_refuses_to_start_and_says_what_to_do(self) -> None:
        done = python("import monolith.config.asgi")
        assert done.returncode == 1
        assert "SHOP_SECRET_KEY is not set" in done.stderr

    @pytest.mark.parametrize("variables", [{"SHOP_SECRET_KEY": "x" * 60}, {"SHOP_DEBUG": "1"}])
    def test_a_secret_or_debug_mode_is_enough(self, variables: dict[str, str]) -> None:
        done = python("import monolith.config.asgi", **variables)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize(
        ("variable", "value", "remedy"),
        [
            ("SHOP_DEBUG", "perhaps", "set it to 1 or 0"),
            ("SHOP_DATABASE_POOL", "many", "not a whole number"),
            ("SHOP_DATABASE_POOL", "-1", "0 is the least"),
            ("SHOP_DATABASE_URL", "mysql://x/y", "postgresql://"),
            ("SHOP_DATABASE_URL", "postgresql://u:p@h:port/d", "SHOP_DATABASE_URL"),
        ],
    )
    def test_a_bad_value_is_named(self, variable: str, value: str, remedy: str) -> None:
        done = python("import monolith.config.settings", **{variable: value})
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert variable in last
        assert remedy in last

    def test_a_password_in_a_bad_url_is_not_repeated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("X_URL", "mysql://u:hush@h/d")
        with pytest.raises(ImproperlyConfigured) as error:
            environment.database("X_URL", "")
        assert "hush" not in str(error.value)

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("postgresql://u:p%40@h:1/d", ("d", "u", "p@", "h", "1", {})),
            ("postgresql://u@/d?host=/run/pg&port=2", ("d", "u", "", "/run/pg", "2", {})),
            ("postgres://h/d?sslmode=require", ("d", "", "", "h", "", {"sslmode": "require"})),
        ],
    )
    def test_database_urls(
        self, monkeypatch: pytest.MonkeyPatch, url: str, expected: tuple[object, ...]
    ) -> None:
        monkeypatch.setenv("X_URL", url)
        assert tuple(environment.database("X_URL", "").values()) == expected

    @pytest.mark.django_db
    def test_an_unreachable_default_database_says_which_variable_to_set(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SHOP_DATABASE_URL", raising=False)
        with pytest.raises(OperationalError) as error:
            unreachable().ensure_connection()
        assert error.value.__cause__ is not None
        assert "Set SHOP_DATABASE_URL" in "".join(error.value.__cause__.__notes__)

    def test_ready_for_deployment_but_for_what_the_proxy_in_front_does(self, settings: Settings) -> None:
        settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
        found = {message.id for message in checks.run_checks(include_deployment_checks=True)}
        assert found == {"security.W004", "security.W008"}  # HSTS and the redirect to https


def unreachable() -> DatabaseWrapper:
    from django.db import connection

    return DatabaseWrapper(
        {**connection.settings_dict, "HOST": "127.0.0.1", "PORT": str(free_port()), "OPTIONS": {}},
        alias="gone",
    )


@pytest.mark.django_db
def test_migrations_are_complete() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


@pytest.mark.django_db
class TestHealth:
    def test_it_lives_and_is_ready(self, client: Client) -> None:
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/ready").json() == {"status": "ok", "checks": {"database": "ok"}}

    def test_without_a_database_it_lives_but_is_not_ready(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "connection", unreachable())
        answer = client.get("/ready")
        assert answer.status_code == 503
        assert "database does not answer" in answer.json()["checks"]["database"]
        assert client.get("/health").status_code == 200


class TestLogs:
    def test_a_record_is_one_line_of_json(self) -> None:
        record = logging.getLogger("x").makeRecord(
            "x", logging.WARNING, "f", 1, "%s\nlines", ("two",), None, extra={"order": 7}
        )
        token = logs.request_id.set("abc")
        try:
            line = logs.JsonFormatter("monolith").format(record)
        finally:
            logs.request_id.reset(token)
        assert "\n" not in line
        fields = json.loads(line)
        assert fields.pop("timestamp").endswith("+00:00")
        assert fields == {
            "level": "warning", "logger": "x", "event": "two\nlines", "service": "monolith", "request_id": "abc",
            "order": 7,
        }  # fmt: skip

    def test_an_exception_is_in_the_record(self) -> None:
        try:
            int("bad")
        except ValueError:
            record = logging.getLogger("x").makeRecord("x", logging.ERROR, "f", 1, "m", (), sys.exc_info())
        assert (
            "ValueError: invalid literal"
            in json.loads(logs.JsonFormatter("monolith").format(record))["exception"]
        )

    @pytest.mark.parametrize(
        ("given", "kept"), [("abc-1", True), ("x" * 129, False), ("a b", False), ("", False)]
    )
    def test_request_ids_are_kept_when_sane_and_made_when_not(
        self, client: Client, given: str, kept: bool
    ) -> None:
        returned = client.get("/health", headers={"X-Request-ID": given})["X-Request-ID"]
        assert (returned == given) is kept
        assert returned

    @pytest.mark.django_db
    def test_a_request_is_logged_without_its_query(
        self, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, logger="monolith.config.requests"):
            client.get("/api/products/?search=private", headers={"X-Request-ID": "r1"})
        (record,) = [record for record in caplog.records if record.name == "monolith.config.requests"]
        assert (record.__dict__["path"], record.__dict__["status"]) == ("/api/products/", 200)
        assert "private" not in logs.JsonFormatter("monolith").format(record)


class TestFiles:
    @pytest.fixture
    def picture(self, settings: Settings) -> Path:
        folder = Path(settings.MEDIA_ROOT)
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(b"png")
        (folder / "page.html").write_text("<script>alert(1)</script>")
        (folder.parent / "secret.txt").write_text("secret")
        return folder / "a.png"

    def test_pictures_are_shown_and_cached(self, client: Client, picture: Path) -> None:
        answer = client.get("/media/a.png")
        assert (answer.content, answer["Content-Type"]) == (b"png", "image/png")
        again = client.get("/media/a.png", headers={"If-Modified-Since": answer["Last-Modified"]})
        assert again.status_code == 304

    def test_anything_else_is_a_download(self, client: Client, picture: Path) -> None:
        answer = client.get("/media/page.html")
        assert answer["Content-Type"] == "application/octet-stream"
        assert answer["Content-Disposition"].startswith("attachment")

    @pytest.mark.parametrize("path", ["../secret.txt", "%2e%2e/secret.txt", "/etc/passwd", "none.png", ""])
    def test_nothing_outside_is_shown(self, client: Client, picture: Path, path: str) -> None:
        assert client.get(f"/media/{path}").status_code == 404

    def test_assets_need_no_collecting(self, client: Client) -> None:
        answer = client.get("/static/admin/css/base.css")
        assert (answer.status_code, answer["Content-Type"]) == (200, 'text/css; charset="utf-8"')
        assert len(answer.content) > 1000


@pytest.mark.django_db
class TestAdmin:
    @pytest.fixture(autouse=True)
    def media(self, settings: Settings, drawings: Path) -> None:
        settings.MEDIA_ROOT = drawings

    def test_every_model_has_a_list_a_search_and_a_form(self, client: Client, staff: User) -> None:
        call_command(
            "seed_shop", products=20, users=5, orders=10, password="pw", replace=True, stdout=StringIO()
        )
        client.force_login(User.objects.get(is_staff=True))
        models = [model for model in apps.get_models() if model._meta.app_label in OURS]
        assert len(models) >= 15
        for model in models:
            assert admin.site.is_registered(model), f"{model} is not in the admin"
            name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
            assert client.get(reverse(f"{name}_changelist")).status_code == 200
            assert client.get(reverse(f"{name}_changelist"), {"q": "a"}).status_code == 200
            if row := model._default_manager.first():
                assert client.get(reverse(f"{name}_change", args=[row.pk])).status_code == 200

    def test_lists_do_not_ask_for_every_row(
        self, client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
    ) -> None:
        call_command("seed_shop", products=60, users=20, orders=60, password="pw", stdout=StringIO())
        client.force_login(User.objects.get(is_staff=True))
        for name in (
            "catalog_product",
            "catalog_review",
            "orders_order",
            "inventory_stockitem",
            "payments_payment",
        ):
            with django_assert_max_num_queries(14):
                client.get(reverse(f"admin:{name}_changelist"))

    def test_orders_move_on_by_action(self, client: Client) -> None:
        call_command("seed_shop", products=20, users=5, orders=40, password="pw", stdout=StringIO())
        client.force_login(User.objects.get(is_staff=True))
        from monolith.orders.models import Order

        paid = Order.objects.filter(status="paid")[0]
        cancelled = Order.objects.filter(status="cancelled")[0]
        page = client.post(
            reverse("admin:orders_order_changelist"),
            {"action": "mark_shipped", "_selected_action": [paid.pk, cancelled.pk]},
            follow=True,
        )
        paid.refresh_from_db()
        assert paid.status == "shipped"
        assert "A cancelled order cannot become shipped" in page.content.decode()

    def test_those_without_the_right_see_no_actions(
        self, client: Client, make_user: Callable[..., User]
    ) -> None:
        client.force_login(make_user(is_staff=True))
        assert client.get(reverse("admin:orders_order_changelist")).status_code == 403


class TestDescription:
    def test_the_schema_is_valid_and_complete(self) -> None:
        out = StringIO()
        call_command("spectacular", validate=True, fail_on_warn=True, stdout=out)
        paths = set(re.findall(r"^  (/api/\S+):$", out.getvalue(), re.MULTILINE))
        assert {
            "/api/products/",
            "/api/checkout/",
            "/api/cart/items/{item_id}/",
            "/api/stock/{sku}/",
        } <= paths

    def test_the_page_shows_every_path_and_asks_nobody_else(self, client: Client) -> None:
        page = client.get("/api/docs/").content.decode()
        schema = StringIO()
        call_command("spectacular", stdout=schema)
        for path in re.findall(r"^  (/api/\S+):$", schema.getvalue(), re.MULTILINE):
            assert path in page
        assert "://" not in page
        assert "<script" not in page


@pytest.mark.django_db
def test_stock_is_public(api: APIClient, make_product: Callable[..., Product]) -> None:
    product = make_product(stock=3)
    body = api.get(f"/api/stock/{product.sku}/").json()
    assert (body["sku"], body["available"], body["in_stock"]) == ("THI-001", 3, True)
    assert api.get("/api/stock/NO-1/").status_code == 404
