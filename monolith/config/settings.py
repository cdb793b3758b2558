"""Settings of the shop, all from the environment.

| variable | meaning | default |
|---|---|---|
| `SHOP_SECRET_KEY` | signs sessions and tokens | none: required unless `SHOP_DEBUG=1` |
| `SHOP_DEBUG` | Django's debug mode, for development only | 0 |
| `SHOP_DATABASE_URL` | `postgresql://user:password@host:port/name` | a local server, database `shop` |
| `SHOP_DATABASE_POOL` | most connections of one process; 0: no pool | 16 in the server, 0 in commands |
| `SHOP_ALLOWED_HOSTS` | comma-separated host names | loopback |
| `SHOP_CSRF_TRUSTED_ORIGINS` | comma-separated origins with scheme | none |
| `SHOP_SECURE_COOKIES` | session and CSRF cookies over https only | 0 |
| `SHOP_MEDIA_ROOT` | where product pictures lie | `var/media` |
| `SHOP_STATIC_ROOT` | where collected assets lie | none: assets are served from the source tree |
| `SHOP_EMAIL_DIR` | e-mails are written there as files | `var/mail` |
| `SHOP_EMAIL_HOST`, `SHOP_EMAIL_PORT` | an SMTP server instead of files | none, 25 |
| `SHOP_THROTTLE_LOGIN`, `_REGISTER`, `_REVIEW`, `_CHECKOUT` | writes of one client: `30/min` | see below |
| `SHOP_PASSWORD_ITERATIONS` | work factor of PBKDF2 | Django's |
| `SHOP_PAYMENT_WEBHOOK_SECRET` | key of the payment provider's signatures | none: its answers are refused |
| `SHOP_LOG_LEVEL` | least level logged | INFO |
| `STRANGLER_SEAM` | adds the removable app `strangler_seam` | 0 |

The module can be imported without a database and without any variable.
"""

from pathlib import Path

from monolith.config import environment, generic_classes

generic_classes.allow_subscripts()

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR.parent / "var"

DEBUG = environment.flag("SHOP_DEBUG")
# An empty key is Django's own "not configured": anything that would sign with it is refused, and
# monolith.config.asgi refuses to start. The literal is for development and says so.
SECRET_KEY = environment.text("SHOP_SECRET_KEY", "insecure-key-for-development-only" if DEBUG else "")

ALLOWED_HOSTS = environment.words("SHOP_ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = environment.words("SHOP_CSRF_TRUSTED_ORIGINS", [])
USE_X_FORWARDED_HOST = False

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django_filters",
    "rest_framework",
    "drf_spectacular",
    "monolith.accounts",
    "monolith.catalog",
    "monolith.inventory",
    "monolith.cart",
    "monolith.orders",
    "monolith.payments",
    "monolith.notifications",
    "monolith.seeding",
    "monolith.storefront",
]

MIDDLEWARE = [
    "monolith.config.requests.RequestLogMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "monolith.config.files.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

if environment.flag("STRANGLER_SEAM"):
    INSTALLED_APPS.append("strangler_seam")
    MIDDLEWARE.insert(0, "strangler_seam.middleware.SeamMiddleware")

ROOT_URLCONF = "monolith.config.urls"
CSRF_FAILURE_VIEW = "monolith.storefront.views.failures.stale_form"
ASGI_APPLICATION = "monolith.config.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "config" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- database -----------------------------------------------------------------------------------------------

_database = environment.database("SHOP_DATABASE_URL", "postgresql://shop@127.0.0.1:5432/shop")
_pool_size = environment.number("SHOP_DATABASE_POOL", 0)
if _pool_size:
    # Under ASGI every request has a thread of its own, so connections that outlive a request must be shared.
    _database["OPTIONS"]["pool"] = {"min_size": 1, "max_size": _pool_size, "timeout": 5.0}
DATABASES = {
    "default": {
        "ENGINE": "monolith.config.database",
        **_database,
        "CONN_HEALTH_CHECKS": True,  # a restarted server costs a reconnect, not an error page
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- people -------------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
PASSWORD_ITERATIONS = environment.number("SHOP_PASSWORD_ITERATIONS", 0, least=0)
PASSWORD_HASHERS = ["monolith.accounts.hashers.ConfiguredPBKDF2Hasher"]
SESSION_COOKIE_AGE = 14 * 24 * 3600
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = environment.flag("SHOP_SECURE_COOKIES")

# --- files --------------------------------------------------------------------------------------------------

STATIC_URL = "/static/"
STATIC_ROOT = environment.text("SHOP_STATIC_ROOT") or None
WHITENOISE_USE_FINDERS = True  # what was not collected is served from the source tree
MEDIA_URL = "/media/"
MEDIA_ROOT = environment.path("SHOP_MEDIA_ROOT", VAR_DIR / "media")

# --- e-mail -------------------------------------------------------------------------------------------------

EMAIL_HOST = environment.text("SHOP_EMAIL_HOST", "localhost")
EMAIL_PORT = environment.number("SHOP_EMAIL_PORT", 25)
EMAIL_FILE_PATH = environment.path("SHOP_EMAIL_DIR", VAR_DIR / "mail")
EMAIL_BACKEND = (
    "django.core.mail.backends.smtp.EmailBackend"
    if environment.text("SHOP_EMAIL_HOST")
    else "django.core.mail.backends.filebased.EmailBackend"
)
DEFAULT_FROM_EMAIL = environment.text("SHOP_EMAIL_FROM", "The shop <orders@shop.test>")

# --- API ----------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["monolith.config.rest.CsrfSessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticatedOrReadOnly"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "monolith.config.rest.ShopPagination",
    "DEFAULT_METADATA_CLASS": "monolith.config.rest.MinimalMetadata",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_THROTTLE_CLASSES": ["monolith.config.rest.WriteThrottle"],
    "DEFAULT_THROTTLE_RATES": {
        "login": environment.text("SHOP_THROTTLE_LOGIN", "30/min"),
        "register": environment.text("SHOP_THROTTLE_REGISTER", "10/min"),
        "review": environment.text("SHOP_THROTTLE_REVIEW", "20/hour"),
        "checkout": environment.text("SHOP_THROTTLE_CHECKOUT", "30/min"),
    },
    # The server in front (uvicorn) has put the client's address into REMOTE_ADDR; a header that clients can write
    # must not tell them apart.
    "NUM_PROXIES": 0,
    "EXCEPTION_HANDLER": "monolith.config.api_errors.handle_exception",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Shop",
    "DESCRIPTION": "The shop's HTTP API.",
    "VERSION": "1.0.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "DEFAULT_GENERATOR_CLASS": "monolith.config.api_docs.SharedSchemaGenerator",
    "ENUM_NAME_OVERRIDES": {
        "PaymentStatus": "monolith.payments.models.Payment.Status",
        "OrderStatus": "monolith.orders.models.STATUS_CHOICES",
    },
}

PAYMENT_WEBHOOK_SECRET = environment.text("SHOP_PAYMENT_WEBHOOK_SECRET")
STOCK_RESERVATION_MINUTES = 30

# --- language, time, logs -----------------------------------------------------------------------------------

LANGUAGE_CODE = "en-gb"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "monolith.config.logs.JsonFormatter", "service": "monolith"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": environment.text("SHOP_LOG_LEVEL", "INFO").upper()},
    # Handlers of Django's and uvicorn's own would print each record a second time, or as plain text.
    "loggers": {
        "django": {"handlers": [], "propagate": True},
        "django.request": {"level": "ERROR"},  # 4xx are in the request's own line
        "django.server": {"handlers": [], "propagate": True},
        "uvicorn": {"handlers": [], "propagate": True},
        "uvicorn.access": {"handlers": [], "propagate": False},  # the shop logs its requests itself
    },
}
