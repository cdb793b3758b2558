"""Django's PostgreSQL backend; a failed connection says which variable to set."""

import os
from typing import Any

from django.db.backends.postgresql import base
from psycopg import OperationalError


class DatabaseWrapper(base.DatabaseWrapper):
    """Connects as Django does. Raises the same errors, with a note about `SHOP_DATABASE_URL`."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """A new connection, or one of the pool."""
        try:
            return super().get_new_connection(conn_params)
        except OperationalError as error:
            where = f"{conn_params.get('host') or 'the default socket'}:{conn_params.get('port') or 5432}"
            if os.environ.get("SHOP_DATABASE_URL"):
                error.add_note(f"The shop tried {where}, from SHOP_DATABASE_URL. Is the server running?")
            else:
                error.add_note(
                    f"The shop tried its default, {where}. Set SHOP_DATABASE_URL, for example "
                    f"postgresql://shop:PASSWORD@127.0.0.1:5432/shop"
                )
            raise
