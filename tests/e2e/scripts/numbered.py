#!/usr/bin/env python3
"""Numbered records through confluent-kafka: produces N of 100 bytes each with acks=all, or reads them back and compares.

    numbered.py produce BOOTSTRAP TOPIC COUNT
    numbered.py consume BOOTSTRAP TOPIC COUNT

`produce` prints `acked N` as acknowledgements come in and ends with `produced N`. It lives through brokers that come
and go: every record is acknowledged once, in order, or it fails. `consume` reads from the first offset to the last and
fails unless they hold exactly the records 0 to COUNT - 1, byte for byte, once each and in order.
"""
import sys

from confluent_kafka import Consumer, Producer, TopicPartition

SIZE = 100
PROGRESS = 5_000


def value(number: int) -> bytes:
    """100 bytes that no other number has, and that a shifted or torn copy does not have either."""
    return (b"%012d:" % number * 8)[:SIZE]


def produce(bootstrap: str, topic: str, count: int) -> None:
    acked = 0

    def delivered(error, message) -> None:
        nonlocal acked
        if error is not None:
            sys.exit(f"record {acked} was not acknowledged: {error}")
        if message.offset() != acked:
            sys.exit(f"record {acked} was acknowledged at offset {message.offset()}")
        acked += 1
        if acked % PROGRESS == 0:
            print("acked", acked)

    producer = Producer({
        "bootstrap.servers": bootstrap,
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 5,
        "queue.buffering.max.messages": 50_000,
        "message.timeout.ms": 240_000,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 200,
        "retry.backoff.ms": 20,
    })
    for number in range(count):
        while True:
            try:
                producer.produce(topic, value(number), partition=0, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.05)
        if number % 100 == 0:
            producer.poll(0)
    left = producer.flush(240)
    if left or acked != count:
        sys.exit(f"{acked} of {count} acknowledged, {left} still waiting")
    print("produced", acked)


def consume(bootstrap: str, topic: str, count: int) -> None:
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": "numbered",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "check.crcs": True,
    })
    first, last = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)
    if (first, last) != (0, count):
        sys.exit(f"the log goes from {first} to {last}, not from 0 to {count}")
    consumer.assign([TopicPartition(topic, 0, 0)])
    expected = 0
    while expected < count:
        messages = consumer.consume(10_000, timeout=30)
        if not messages:
            sys.exit(f"nothing came for 30 s after record {expected}")
        for message in messages:
            if message.error():
                sys.exit(f"at record {expected}: {message.error()}")
            if message.offset() != expected or message.value() != value(expected):
                sys.exit(f"offset {message.offset()} holds {message.value()[:13]!r}, expected record {expected}")
            expected += 1
    consumer.close()
    print("consumed", expected)


if __name__ == "__main__":
    command, bootstrap, topic, count = sys.argv[1:]
    {"produce": produce, "consume": consume}[command](bootstrap, topic, int(count))
