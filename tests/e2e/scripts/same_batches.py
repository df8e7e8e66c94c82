#!/usr/bin/env python3
"""Compares two copies of a partition batch by batch, on the wire, and then record by record as confluent-kafka reads them.

    same_batches.py BOOTSTRAP TOPIC PARTITION OTHER_BOOTSTRAP OTHER_TOPIC

Both copies are fetched from their first offset to their high watermark. They are the same when every batch has the same
base offset and the same bytes from the length on, but for the leader epoch, which is each copy's own. No Kafka client
shows where batches begin and end, so this part is a small client of its own. confluent-kafka then says what a consumer
gets, with checksums on: offset, timestamp, key, value and headers of every record must be the same. Prints
`same N batches, M records, B bytes`, or says where the copies part and exits 1.
"""
import itertools
import socket
import struct
import sys

from confluent_kafka import Consumer, TopicPartition

LIST_OFFSETS, FETCH = 2, 1
EARLIEST = -2


class Connection:
    """One connection, one request at a time."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation = 0

    def call(self, key: int, version: int, body: bytes) -> bytes:
        self.correlation += 1
        header = struct.pack(">hhih", key, version, self.correlation, 4) + b"same"
        self.socket.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
        (length,) = struct.unpack(">i", self.read(4))
        answer = self.read(length)
        assert struct.unpack(">i", answer[:4])[0] == self.correlation
        return answer[4:]

    def read(self, length: int) -> bytes:
        chunks = []
        while length:
            chunk = self.socket.recv(min(length, 1 << 20))
            if not chunk:
                raise ConnectionError("the broker closed the connection")
            chunks.append(chunk)
            length -= len(chunk)
        return b"".join(chunks)


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def first_offset(connection: Connection, topic: str, partition: int) -> int:
    body = struct.pack(">ii", -1, 1) + text(topic) + struct.pack(">iiq", 1, partition, EARLIEST)
    answer = connection.call(LIST_OFFSETS, 1, body)
    _, error, _, offset = struct.unpack_from(">ihqq", answer, 4 + 2 + len(topic) + 4)
    if error:
        sys.exit(f"{topic}-{partition}: error {error} for the first offset")
    return offset


def fetch(connection: Connection, topic: str, partition: int, offset: int) -> tuple[int, bytes]:
    """The high watermark, and whole batches from an offset on, with perhaps the beginning of one more."""
    body = struct.pack(">iiiib", -1, 500, 1, 8 << 20, 0)
    body += struct.pack(">i", 1) + text(topic) + struct.pack(">iiqi", 1, partition, offset, 8 << 20)
    answer = connection.call(FETCH, 4, body)
    at = 4 + 4 + 2 + len(topic) + 4
    _, error, high_watermark, _, aborted = struct.unpack_from(">ihqqi", answer, at)
    at += 26 + 16 * max(aborted, 0)
    (length,) = struct.unpack_from(">i", answer, at)
    if error:
        sys.exit(f"{topic}-{partition}: error {error} at offset {offset}")
    return high_watermark, answer[at + 4:at + 4 + max(length, 0)]


def batches(address: str, topic: str, partition: int):
    """Every batch from the first offset to the high watermark: its offsets, and its bytes without the leader epoch."""
    connection = Connection(address)
    offset = first_offset(connection, topic, partition)
    while True:
        high_watermark, data = fetch(connection, topic, partition, offset)
        if offset >= high_watermark:
            return
        at = 0
        while at + 61 <= len(data):
            base, length = struct.unpack_from(">qi", data, at)
            end = at + 12 + length
            if end > len(data):
                break
            (last_delta,) = struct.unpack_from(">i", data, at + 23)
            if base + last_delta >= offset:
                yield base, base + last_delta, data[at + 8:at + 12] + data[at + 16:end]
                offset = base + last_delta + 1
            at = end
        if at == 0:
            sys.exit(f"{topic}-{partition}: no whole batch at offset {offset} of {high_watermark}")


def read(address: str, topic: str, partition: int):
    """Every record from the first offset to the high watermark, as a consumer gets it."""
    consumer = Consumer({
        "bootstrap.servers": address,
        "group.id": "same",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "check.crcs": True,
    })
    at, last = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
    consumer.assign([TopicPartition(topic, partition, at)])
    while at < last:
        # No more than there is: it waits for as many as it is asked for.
        messages = consumer.consume(min(10_000, last - at), timeout=30)
        if not messages:
            sys.exit(f"{topic}-{partition}: nothing came for 30 s from offset {at} on")
        for message in messages:
            if message.error():
                sys.exit(f"{topic}-{partition}: {message.error()} at offset {at}")
            at = message.offset() + 1
            yield message.offset(), message.timestamp(), message.key(), message.value(), message.headers()
    consumer.close()


def main() -> None:
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    one, topic, partition, other, copy = sys.argv[1:]
    left, right = batches(one, topic, int(partition)), batches(other, copy, int(partition))
    count = records = size = 0
    while True:
        a, b = next(left, None), next(right, None)
        if a is None and b is None:
            break
        if a != b:
            shown = [batch and (batch[0], batch[1], len(batch[2])) for batch in (a, b)]
            sys.exit(f"they part after {count} batches: (first, last, bytes) {shown[0]} and {shown[1]}")
        count, records, size = count + 1, records + a[1] - a[0] + 1, size + len(a[2])
    left, right = read(one, topic, int(partition)), read(other, copy, int(partition))
    consumed = 0
    for a, b in itertools.zip_longest(left, right):
        if a != b:
            sys.exit(f"they part after {consumed} records: {a} and {b}")
        consumed += 1
    if consumed != records:
        sys.exit(f"a consumer gets {consumed} records of {records}")
    print(f"same {count} batches, {records} records, {size} bytes")


if __name__ == "__main__":
    main()
