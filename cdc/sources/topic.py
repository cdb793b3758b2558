"""Ask a broker which topic it is that bears a name now."""

from uuid import UUID

from kafka import KafkaAdminClient

from cdc.connect import RECONNECT_MS
from cdc.lineage import Topic

_ANSWER = 3_000  # milliseconds that a broker has


class TopicIds:
    """Finds topic `name` on the brokers `bootstrap`; connects when it is first asked."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self._bootstrap = bootstrap
        self._name = name
        self._admin: KafkaAdminClient | None = None

    def find(self) -> Topic | None:
        """The topic as it is now; None when there is none, or when the broker knows no ids (before Kafka 2.8). Raises
        kafka.errors.KafkaError.
        """
        if self._admin is None:
            self._admin = KafkaAdminClient(
                bootstrap_servers=self._bootstrap,
                request_timeout_ms=_ANSWER,
                bootstrap_timeout_ms=_ANSWER,
                reconnect_backoff_max_ms=RECONNECT_MS,
            )
        (found,) = self._admin.describe_topics([self._name])
        if found["error_code"] or not found.get("topic_id"):
            return None
        known = UUID(str(found["topic_id"]))
        return Topic(self._name, known) if known.int else None

    def close(self) -> None:
        """Disconnect."""
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()
