#!/usr/bin/env python3
"""A client of the faults ring through confluent-kafka: produces or consumes, and writes down what it was told.

    client.py produce NAME BOOTSTRAP TOPIC PARTITIONS RATE,RECORD_BYTES HISTORY
    client.py consume NAME BOOTSTRAP TOPIC PARTITIONS RACK HISTORY

The history is what `tests/checker` reads: a line of JSON for each event, times in microseconds of the monotonic clock.
A producer sends numbered records at a steady rate, with idempotence on, and never gives one up before it is told to
end. Both run until a line comes on stdin (or stdin is closed), and print `count N` each second and once in the end.
"""
import select
import sys
import time
import zlib

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

VALUE_BYTES_MIN = 80
CHECKSUM_DIGITS = 8
WAITING_MAX = 2_000
TICK = 0.01
# Not given up while a run lasts; the most that librdkafka takes is 2^31 - 1 ms.
DELIVERY_MS = 3_600_000


def now() -> int:
    return time.monotonic_ns() // 1000


def value(name: str, partition: int, sequence: int, size: int) -> bytes:
    text = f"{name} {partition} {sequence} "
    filling = f"{sequence}."
    text += filling * (size // len(filling) + 1)
    text = text[:size - CHECKSUM_DIGITS - 1] + " "
    return f"{text}{zlib.crc32(text.encode()):08x}".encode()


def parse(data: bytes | None):
    """The producer, partition and sequence of a record; none if any bit is not as a producer of ours makes it."""
    try:
        text = data.decode()
        name, partition, sequence, _ = text.split(" ", 3)
        if len(data) >= VALUE_BYTES_MIN and value(name, int(partition), int(sequence), len(data)) == data:
            return name, int(partition), int(sequence)
    except (AttributeError, UnicodeDecodeError, ValueError):
        pass
    return None


class Client:
    """What both have: a history, a name, a count, an end."""

    def __init__(self, name: str, history: str) -> None:
        self.name = name
        self.file = open(history, "w", buffering=1 << 20)
        self.count = 0
        self.told = time.monotonic()

    def write(self, event: str, partition: int, rest: str) -> None:
        self.file.write(f'{{"event":"{event}","client":"{self.name}","partition":{partition}{rest}}}\n')

    def tell(self, at_once: bool = False) -> None:
        if at_once or time.monotonic() - self.told >= 1:
            self.told = time.monotonic()
            print("count", self.count, flush=True)

    def error(self, error) -> None:
        print("error", str(error).replace("\n", " "), flush=True)

    @staticmethod
    def is_told_to_end() -> bool:
        return bool(select.select([sys.stdin], [], [], 0)[0])


def produce(client: Client, bootstrap: str, topic: str, partitions: int, load: str) -> None:
    rate, size = map(int, load.split(","))
    waiting = [0] * partitions
    sequences = [0] * partitions

    def delivered(partition: int, sequence: int):
        def note(error, message) -> None:
            waiting[partition] -= 1
            if error is None:
                client.count += 1
                offset = message.offset()
                rest = f',"sequence":{sequence},"offset":{offset},"at":{now()}'
                # A repetition that the broker remembers only dimly comes back without its offset.
                if offset is None or offset < 0:
                    rest = f',"sequence":{sequence},"at":{now()}'
                client.write("ok", partition, rest)
                return
            # librdkafka knows more, but does not tell Python whether an earlier attempt ended in doubt.
            client.write("unknown", partition, f',"sequence":{sequence},"at":{now()}')
            client.error(error)
        return note

    producer = Producer({
        "bootstrap.servers": bootstrap,
        "client.id": client.name,
        "acks": "all",
        "enable.idempotence": True,
        # With more, a batch that is refused after an earlier one makes librdkafka begin a new epoch on all partitions, and
        # send again under new numbers what another partition may have stored already (confluentinc/librdkafka#4953).
        "max.in.flight.requests.per.connection": 1,
        "linger.ms": 5,
        "message.timeout.ms": DELIVERY_MS,
        "socket.timeout.ms": 10_000,
        "reconnect.backoff.max.ms": 1_000,
        "error_cb": client.error,
        # What it would print of each lost connection comes through error_cb as well.
        "log_level": 0,
    })
    turn = 0
    owed = 0.0
    last = time.monotonic()
    while not client.is_told_to_end():
        producer.poll(TICK)
        at = time.monotonic()
        # After a stall the rate is what it was.
        owed += rate * min(at - last, 2 * TICK)
        last = at
        while owed >= 1:
            owed -= 1
            partition = turn % partitions
            turn += 1
            if waiting[partition] >= WAITING_MAX:
                continue
            sequence = sequences[partition]
            client.write("invoke", partition, f',"sequence":{sequence},"at":{now()}')
            producer.produce(topic, value(client.name, partition, sequence, size), partition=partition,
                             on_delivery=delivered(partition, sequence))
            sequences[partition] += 1
            waiting[partition] += 1
        client.tell()
    while producer.flush(1):
        client.tell()


def consume(client: Client, bootstrap: str, topic: str, partitions: int, rack: str) -> None:
    settings = {
        "bootstrap.servers": bootstrap,
        "client.id": client.name,
        "group.id": client.name,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_uncommitted",
        "check.crcs": True,
        "socket.timeout.ms": 10_000,
        "reconnect.backoff.max.ms": 1_000,
        "error_cb": client.error,
        # What it would print of each lost connection comes through error_cb as well.
        "log_level": 0,
    }
    if rack:
        settings["client.rack"] = rack
    consumer = Consumer(settings)
    for partition in range(partitions):
        client.write("start", partition, ',"offset":0')
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(partitions)])
    while not client.is_told_to_end():
        for message in consumer.consume(1_000, timeout=0.2):
            if message.error():
                client.error(message.error())
                continue
            partition, at = message.partition(), now()
            record = parse(message.value())
            place = f',"offset":{message.offset()},"at":{at}'
            if record is None or record[1] != partition:
                client.write("alien", partition, place)
            else:
                client.write("read", partition, f',"producer":"{record[0]}","sequence":{record[2]}{place}')
            client.count += 1
        client.tell()
    consumer.close()


def main() -> None:
    command, name, bootstrap, topic, partitions, last, history = sys.argv[1:]
    client = Client(name, history)
    try:
        if command == "produce":
            produce(client, bootstrap, topic, int(partitions), last)
        else:
            consume(client, bootstrap, topic, int(partitions), last)
    finally:
        client.file.close()
        client.tell(at_once=True)


if __name__ == "__main__":
    main()
