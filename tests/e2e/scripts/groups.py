#!/usr/bin/env python3
"""One member of a consumer group, by the client of one's choice.

    groups.py LIBRARY BOOTSTRAP TOPIC GROUP [STRATEGY]

LIBRARY is confluent-kafka, kafka-python or aiokafka. Prints `owns P,P,...` whenever it is given partitions, `read
PARTITION OFFSET` for each record, and `committed` after each commit; whatever it read is committed before it reads on.
Ends only when it is killed: it then says nothing to the group.
"""
import asyncio
import sys

SESSION_MS = 6_000


def owns(partitions) -> None:
    print("owns", ",".join(str(partition) for partition in sorted(partitions)), flush=True)


def read(partition, offset) -> None:
    print("read", partition, offset, flush=True)


def committed() -> None:
    print("committed", flush=True)


def confluent(bootstrap: str, topic: str, group: str, strategy: str) -> None:
    from confluent_kafka import Consumer, KafkaError, KafkaException

    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "session.timeout.ms": SESSION_MS,
        "heartbeat.interval.ms": 500,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "partition.assignment.strategy": strategy,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 200,
    })

    def show(consumer, partitions) -> None:
        # Cooperative members are told what changes; what they own then is their assignment.
        if strategy == "cooperative-sticky":
            consumer.incremental_assign(partitions)
            owns(it.partition for it in consumer.assignment())
        else:
            owns(it.partition for it in partitions)

    def lose(consumer, partitions) -> None:
        if strategy == "cooperative-sticky":
            consumer.incremental_unassign(partitions)
            owns(it.partition for it in consumer.assignment())

    consumer.subscribe([topic], on_assign=show, on_revoke=lose)
    owes = False
    while True:
        messages = [message for message in consumer.consume(100, timeout=0.2) if not message.error()]
        for message in messages:
            read(message.partition(), message.offset())
        if not messages and not owes:
            continue
        try:
            consumer.commit(asynchronous=False)
        except KafkaException as error:
            # The group moves on, or the node is away. What was taken away is read again by somebody; what a cooperative member
            # keeps is not, and has still to be committed.
            owes = error.args[0].code() != KafkaError._NO_OFFSET
            print("not committed", error, flush=True)
            continue
        owes = False
        committed()


def kafka_python(bootstrap: str, topic: str, group: str, strategy: str) -> None:
    from kafka import ConsumerRebalanceListener, KafkaConsumer
    from kafka.errors import KafkaError

    class Listener(ConsumerRebalanceListener):
        def on_partitions_revoked(self, revoked) -> None:
            pass

        def on_partitions_assigned(self, assigned) -> None:
            owns(it.partition for it in assigned)

    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        session_timeout_ms=SESSION_MS,
        heartbeat_interval_ms=500,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        reconnect_backoff_ms=20,
        reconnect_backoff_max_ms=200,
    )
    consumer.subscribe([topic], listener=Listener())
    while True:
        records = consumer.poll(timeout_ms=200)
        if not records:
            continue
        for batch in records.values():
            for record in batch:
                read(record.partition, record.offset)
        try:
            consumer.commit()
        except KafkaError as error:
            print("not committed", error, flush=True)
            continue
        committed()


def aio(bootstrap: str, topic: str, group: str, strategy: str) -> None:
    from aiokafka import AIOKafkaConsumer
    from aiokafka.abc import ConsumerRebalanceListener
    from aiokafka.errors import KafkaError

    class Listener(ConsumerRebalanceListener):
        async def on_partitions_revoked(self, revoked) -> None:
            pass

        async def on_partitions_assigned(self, assigned) -> None:
            owns(it.partition for it in assigned)

    async def run() -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=500,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        consumer.subscribe([topic], listener=Listener())
        await consumer.start()
        while True:
            records = await consumer.getmany(timeout_ms=200)
            if not records:
                continue
            for batch in records.values():
                for record in batch:
                    read(record.partition, record.offset)
            try:
                await consumer.commit()
            except KafkaError as error:
                print("not committed", error, flush=True)
                continue
            committed()

    asyncio.run(run())


if __name__ == "__main__":
    library, bootstrap, topic, group, *strategy = sys.argv[1:]
    run = {"confluent-kafka": confluent, "kafka-python": kafka_python, "aiokafka": aio}[library]
    run(bootstrap, topic, group, *(strategy or ["range"]))
