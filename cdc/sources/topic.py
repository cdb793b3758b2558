"""Ask a broker which topic it is that bears a name now, and whether it keeps every record."""

from uuid import UUID

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from cdc.connect import RECONNECT_MS
from cdc.lineage import Topic
from cdc.seams import BEGIN_ANEW, StreamError

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
        (found,) = self._asking().describe_topics([self._name])
        if found["error_code"] or not found.get("topic_id"):
            return None
        known = UUID(str(found["topic_id"]))
        return Topic(self._name, known) if known.int else None

    def refuse_compaction(self) -> None:
        """Raises StreamError when the topic keeps but the last record of a key: rows vanish from the middle of their
        transactions, and of one whose records are all overwritten nothing tells. Raises kafka.errors.KafkaError.
        """
        setting = "cleanup.policy"
        asked = ConfigResource(ConfigResourceType.TOPIC, self._name, {setting: None})
        # by default an answer leaves out what the broker's own configuration sets
        found = self._asking().describe_configs([asked], config_filter="all")
        policy = str(found["topic"][self._name][setting]["value"])
        if "compact" in policy.split(","):
            raise StreamError(
                f"topic {self._name} has {setting}={policy}: Kafka may remove rows and whole transactions that were "
                f"not read yet. Run kafka-configs --bootstrap-server {self._bootstrap} --alter --topic {self._name} "
                f"--add-config {setting}=delete; where changes have come since it was so, {BEGIN_ANEW}"
            )

    def _asking(self) -> KafkaAdminClient:
        if self._admin is None:
            self._admin = KafkaAdminClient(
                bootstrap_servers=self._bootstrap,
                request_timeout_ms=_ANSWER,
                bootstrap_timeout_ms=_ANSWER,
                reconnect_backoff_max_ms=RECONNECT_MS,
            )
        return self._admin

    def close(self) -> None:
        """Disconnect."""
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()
