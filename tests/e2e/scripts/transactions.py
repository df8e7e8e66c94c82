#!/usr/bin/env python3
"""Copies one topic to another exactly once: what it reads, writes and commits of a group's offsets is one transaction.

    transactions.py BOOTSTRAP FROM TO GROUP TRANSACTIONAL_ID

Prints `copied COUNT` after each transaction that is committed, COUNT being its records, and `aborted` after each that is not: every fifth
is given up on purpose. Ends with status 3 when another process has taken its transactional id over, else only when it is killed.
"""
import sys

from confluent_kafka import Consumer, KafkaException, Producer

PATIENCE = 60


def rewind(consumer) -> None:
    """Reads on from what is committed."""
    for place in consumer.committed(consumer.assignment(), timeout=PATIENCE):
        place.offset = max(place.offset, 0)
        consumer.seek(place)


def give_up(producer, consumer) -> None:
    while True:
        try:
            producer.abort_transaction(PATIENCE)
            break
        except KafkaException as error:
            if not error.args[0].retriable():
                raise
    rewind(consumer)
    print("aborted", flush=True)


def commit(producer, consumer) -> None:
    positions = consumer.position(consumer.assignment())
    producer.send_offsets_to_transaction(
        [it for it in positions if it.offset >= 0], consumer.consumer_group_metadata(), PATIENCE)
    while True:
        try:
            return producer.commit_transaction(PATIENCE)
        except KafkaException as error:
            if not error.args[0].retriable():
                raise


def main(bootstrap: str, source: str, sink: str, group: str, transactional_id: str) -> None:
    settings = {
        "bootstrap.servers": bootstrap,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 200,
    }
    consumer = Consumer({
        **settings,
        "group.id": group,
        "session.timeout.ms": 6_000,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
    })
    producer = Producer({**settings, "transactional.id": transactional_id, "linger.ms": 2})
    producer.init_transactions(PATIENCE)
    consumer.subscribe([source])
    number = 0
    while True:
        messages = [message for message in consumer.consume(40, timeout=0.2) if not message.error()]
        if not messages:
            continue
        number += 1
        producer.begin_transaction()
        try:
            for message in messages:
                producer.produce(sink, message.value(), partition=message.partition())
            if number % 5 == 0:
                producer.flush(PATIENCE)
                give_up(producer, consumer)
                continue
            commit(producer, consumer)
        except KafkaException as error:
            if not error.args[0].txn_requires_abort():
                raise
            give_up(producer, consumer)
            continue
        print("copied", len(messages), flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KafkaException as error:
        print("ended", error, flush=True)
        sys.exit(3)
