"""Do one scenario of a stream through Kafka to real processes; `one_stream.py` has the order and the judgement."""

import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from cdc.changes import Lsn
from cdc.connect import Connect, forget
from cdc.pipeline import StreamConfig
from tests.cdc_shop import admin
from tests.chaos.kafka_scenario import KafkaFault, KafkaScenario, KafkaStep, kafka_expect
from tests.chaos.kafka_side import KafkaSide, TopicLook
from tests.chaos.one_stream import ChaosError, OneStream, Outcome, perform
from tests.chaos.pair import Pair, crash, drop_slots, one
from tests.chaos.scenario import Ending, Step
from tests.chaos.steps import LARGE, NotReachedError, holding, position, wait_for, waits, write_large
from tests.chaos.stream_process import StreamProcess

HELD = {
    KafkaStep.MID_BATCH: Step.MID_BATCH,
    KafkaStep.ROWS_BEFORE_POSITION: Step.ROWS_BEFORE_POSITION,
}
"""Steps at which a lock in the target holds the stream, as without Kafka."""

_SOME = 500  # records of a large transaction that have reached the topic
_ATTEMPTS = 8


def run_kafka_seed(scenario: KafkaScenario, pair: Pair, side: KafkaSide) -> Outcome:
    """Raises as `perform` does."""

    def make(name: str, directory: Path) -> "KafkaRun":
        return KafkaRun(scenario, pair, side, name=name, directory=directory)

    return perform(pair, str(scenario), make)


class KafkaRun(OneStream):
    """A stream through Kafka. Its slot, topic, group and connector have one name."""

    catch_up = (
        120.0  # the connector's watcher waits up to 30 s between the attempts that come into question here
    )

    def __init__(
        self, scenario: KafkaScenario, pair: Pair, side: KafkaSide, *, name: str, directory: Path
    ) -> None:
        self.scenario, self.side = scenario, side
        self.kafka = side.settings(name)
        super().__init__(scenario, pair, name, directory)

    def make_stream(self, directory: Path) -> StreamProcess:
        """`run_kafka_stream.py`."""
        return StreamProcess(
            self.pair,
            database=self.name,
            slot=self.name,
            publication=self.shop.config.publication,
            directory=directory,
            kafka=self.kafka,
        )

    def config(self) -> StreamConfig:
        """With the source that is the source now."""
        return replace(super().config(), kafka=self.kafka)

    def end(self) -> None:
        """Leave neither process nor connector nor topic."""
        super().end()
        self.side.repair()
        self.pair.source_cut.heal()
        forget(self.kafka, name=self.slot)

    def do_what_it_says(self) -> None:
        """Also what lies in Kafka goes when a stream is torn down."""
        forget(self.kafka, name=self.slot)
        super().do_what_it_says()

    def befall(self) -> Ending:
        """The scenario."""
        fault = self.scenario.fault
        if fault in {KafkaFault.FAILOVER_WITH_SLOT, KafkaFault.FAILOVER_BEHIND}:
            self.pair.add_standby(with_slot=(self.name, self.slot))
        self.writer.start()
        self.stream.start()
        with closing(TopicLook(self.side, self.slot)) as look:
            self._await_stream()
            if fault is KafkaFault.FAILOVER_BEHIND:
                self.pair.cut_standby_off()
                self.get_ahead()
            with holding(HELD.get(self.scenario.step, Step.ANY_TIME), self.pair.target_dsn(self.name)):
                self._reach(look)
                if self.dead():
                    raise ChaosError(f"the stream ended before any fault:\n{self.tail()}")
                time.sleep(self.scenario.linger)
                self._strike(look)
        self._heal()
        return kafka_expect(fault)

    def _await_stream(self) -> None:
        """Its beginning, or, for all later steps, that the first transactions have come all the way."""
        enough = 0 if self.scenario.step is KafkaStep.STREAM_BEGINS else 5
        query = "SELECT transactions >= %s FROM strangler_cdc.position WHERE stream = %s"
        with admin(self.pair.target_dsn(self.name)) as target:
            wait_for(
                lambda: self.dead() or bool(one(target, query, enough, self.slot)), "the stream has begun"
            )

    def _reach(self, look: TopicLook) -> None:
        with admin(self.pair.target_dsn(self.name)) as target:
            match self.scenario.step:
                case KafkaStep.STREAM_BEGINS | KafkaStep.ANY_TIME:
                    return
                case KafkaStep.MID_BATCH:
                    wait_for(lambda: self.dead() or waits(target, self.slot), "a batch is written")
                case KafkaStep.ROWS_BEFORE_POSITION:
                    wait_for(
                        lambda: self.dead() or waits(target, self.slot, having_written=True),
                        "rows are written",
                    )
                case KafkaStep.APPLIED_BEFORE_OFFSET:

                    def ahead() -> bool:
                        stored, committed = position(target, self.slot), look.committed()
                        return stored is not None and (committed is None or committed < Lsn.parse(stored))

                    wait_for(lambda: self.dead() or ahead(), "the target is ahead of the offset")
                case KafkaStep.MID_LARGE_AT_CONNECTOR:
                    self._reach_large(look)
                case KafkaStep.CONNECTOR_RESTARTS:
                    with Connect(self.side.connect.url) as door:
                        door.restart(self.slot, only_failed=False)

    def _reach_large(self, look: TopicLook) -> None:
        """The connector has written the beginning of a large transaction and not its end."""
        for attempt in range(_ATTEMPTS):
            enough = look.end() + _SOME
            write_large(self.pair.source_dsn(self.name), warehouse=f"L{attempt}")
            wait_for(partial(look.has, enough), "the large transaction reaches the topic")
            if look.end() < enough - _SOME + LARGE:
                return
        raise NotReachedError(f"{_ATTEMPTS} large transactions were whole in the topic before anybody looked")

    def _strike(self, look: TopicLook) -> None:
        pair, side = self.pair, self.side
        match self.scenario.fault:
            case KafkaFault.KILL_CONSUMER:
                self.stream.kill()
            case KafkaFault.KILL_CONNECT:
                side.kill(side.connect)
            case KafkaFault.KILL_BROKER:
                side.kill(side.broker)
            case KafkaFault.KILL_SOURCE:
                crash(pair.source)
            case KafkaFault.KILL_TARGET:
                crash(pair.target)
            case KafkaFault.CLOSE_SOURCE:
                pair.source_cut.close()
            case KafkaFault.RESET_BROKER:
                side.cut.reset()
            case KafkaFault.SILENCE_BROKER:
                side.cut.silence()
            case KafkaFault.CONNECTOR_DELETED:
                with Connect(side.connect.url) as door:
                    door.delete(self.slot)
            case KafkaFault.CONNECTOR_PAUSED:
                with Connect(side.connect.url) as door:
                    door.pause(self.slot)
            case KafkaFault.SLOT_DROPPED:
                with admin(pair.source_dsn(self.name)) as source:
                    drop_slots(source, self.name)
            case KafkaFault.TOPIC_TRUNCATED:
                self._truncate(look)
            case KafkaFault.TOPIC_DELETED:
                look.delete()
            case KafkaFault.FAILOVER_WITH_SLOT:
                pair.switch_over()
            case KafkaFault.FAILOVER_BEHIND:
                pair.fail_over(caught_up=False)

    def _truncate(self, look: TopicLook) -> None:
        """The stream is dead while a change comes into the topic and leaves it again."""
        self.stream.kill()
        with admin(self.pair.source_dsn(self.name)) as source:
            source.execute("UPDATE catalog_product SET price = price + 1")
            mark = one(source, "SELECT pg_current_wal_insert_lsn()::text")
            query = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
            wait_for(
                lambda: bool(one(source, query, mark, self.slot)), "the connector has written the change"
            )
        look.truncate()

    def _heal(self) -> None:
        time.sleep(self.scenario.lasts)
        match self.scenario.fault:
            case KafkaFault.KILL_CONSUMER | KafkaFault.TOPIC_TRUNCATED:
                self.stream.start()
            case KafkaFault.KILL_SOURCE:
                self.pair.source.start()
            case KafkaFault.KILL_TARGET:
                self.pair.target.start()
            case KafkaFault.CONNECTOR_PAUSED:
                with Connect(self.side.connect.url) as door:
                    door.resume(self.slot)
            case KafkaFault.KILL_CONNECT | KafkaFault.KILL_BROKER | KafkaFault.SILENCE_BROKER:
                self.side.repair(forget=self.scenario.seed % 2 == 0)
            case _:
                pass  # the fault was over in a moment; the stream has to find its way itself
