"""What a person can do about a connector's fault, from the words in which Kafka and PostgreSQL tell it. Pure.

Kafka's are those of org.apache.kafka.common.errors.RecordTooLargeException, thrown by the producer
(`KafkaProducer.ensureValidRecordSize`) and told by the broker (error MESSAGE_TOO_LARGE).
"""

import re
from typing import Final

_AGAIN: Final = "the connector then sends it again, and nothing is lost"
_LARGER_THAN_SENT: Final = (
    "a row is larger than the connector's producer.override.max.request.size: raise stream.kafka.max_record_bytes of "
    f"the plan and max.message.bytes of the topic, and start the stream again; {_AGAIN}"
)
_LARGER_THAN_TAKEN: Final = (
    "a row is larger than max.message.bytes of the stream's topic: raise it there (kafka-configs --alter --entity-type "
    "topics --add-config max.message.bytes=…), or message.max.bytes of the broker where the topic has no value of its "
    f"own; {_AGAIN}"
)
_NO_PUBLICATION: Final = (
    "make it anew with its tables (CREATE PUBLICATION … FOR TABLE …); what was written to them in between cannot be "
    "read any more"
)
_NO_RIGHT: Final = f"give the worker's user the right to write to the stream's topic; {_AGAIN}"
_REMEDIES: Final = (
    (r"which is the value of the max\.request\.size", _LARGER_THAN_SENT),
    (r"RecordTooLargeException", _LARGER_THAN_TAKEN),
    (r"publication \"[^\"]*\" does not exist", _NO_PUBLICATION),
    (r"(Topic|Cluster|Group)AuthorizationException", _NO_RIGHT),
)


def remedy(fault: str) -> str:
    """What to do about `fault`; "" when its words say nothing that is known."""
    return next((told for pattern, told in _REMEDIES if re.search(pattern, fault)), "")
