"""Write `.env` for docker-compose.yml: a password for each role, secrets, and the user that may edit the routes file.

Needs nothing but Python. What stands in the file already is kept; the file is readable by you alone.
"""

import os
import secrets
import sys
from pathlib import Path

SECRETS = (
    "POSTGRES_PASSWORD", "SHOP_PASSWORD", "CATALOG_PASSWORD", "STRANGLER_PASSWORD", "CDC_PASSWORD",
    "SHOP_SECRET_KEY", "SHOP_PAYMENT_WEBHOOK_SECRET", "SHOP_DEMO_PASSWORD",
    "STRANGLER_COOKIE_SECRET", "STRANGLER_ADMIN_TOKEN", "GRAFANA_PASSWORD",
)  # fmt: skip


def main(file: Path) -> int:
    """Add what is missing to `file`."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    known = {line.partition("=")[0] for line in lines}
    lines += [f"{name}={secrets.token_hex(24)}" for name in SECRETS if name not in known]
    if "COMPOSE_UID" not in known:
        lines.append(f"COMPOSE_UID={os.getuid()}:{os.getgid()}")
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{file}: passwords and secrets of the containers; the demo users' password is SHOP_DEMO_PASSWORD")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".env")))
