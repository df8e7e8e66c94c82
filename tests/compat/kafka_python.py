"""kafka-python, a client in Python alone."""
import sys
import time

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.structs import OffsetAndMetadata

from driver import CODECS, eventually, expect, run, values

BOOTSTRAP, PREFIX, REPLICAS = sys.argv[1], sys.argv[2], int(sys.argv[3])
PATIENCE_MS = 60_000
admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)


def topic(name: str, partitions: int = 1) -> str:
    name = f"{PREFIX}-{name}"
    admin.create_topics([NewTopic(name, partitions, REPLICAS)])
    return name


def send(name: str, sent: list, **settings) -> None:
    """`sent` are keyword arguments of `send`."""
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, acks="all", **settings)
    futures = [producer.send(name, partition=0, **record) for record in sent]
    producer.flush(PATIENCE_MS / 1000)
    for future in futures:
        future.get(PATIENCE_MS / 1000)
    producer.close()


def collect(consumer: KafkaConsumer, count: int) -> list:
    found, deadline = [], time.monotonic() + PATIENCE_MS / 1000
    while len(found) < count and time.monotonic() < deadline:
        for records in consumer.poll(1000, max_records=count - len(found)).values():
            found.extend(records)
    expect(len(found), count, "records read")
    return found


def read(name: str, count: int) -> list:
    consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(name, 0)])
    try:
        return collect(consumer, count)
    finally:
        consumer.close()


def produce(codec: str) -> None:
    name, sent = topic(f"produce-{codec}"), values(codec)
    send(name, [{"value": value} for value in sent], compression_type=None if codec == "none" else codec)
    expect([record.value for record in read(name, len(sent))], sent, "values")


def idempotent() -> None:
    name, sent = topic("idempotent"), values("once")
    send(name, [{"value": value} for value in sent], enable_idempotence=True)
    found = read(name, len(sent))
    expect([(record.offset, record.value) for record in found], list(enumerate(sent)), "records")


def headers() -> None:
    name, sent = topic("headers"), [("a", b"1"), ("a", b"\x00\xff")]
    send(name, [{"key": b"k", "value": b"v", "headers": sent}])
    found = read(name, 1)[0]
    expect((found.key, found.value, list(found.headers)), (b"k", b"v", sent), "the record")


def offsets() -> None:
    name = topic("offsets")
    send(name, [{"value": b"x", "timestamp_ms": 1_000_000 * (number + 1)} for number in range(5)])
    consumer, partition = KafkaConsumer(bootstrap_servers=BOOTSTRAP), TopicPartition(name, 0)
    try:
        expect(consumer.beginning_offsets([partition])[partition], 0, "first")
        expect(consumer.end_offsets([partition])[partition], 5, "end")
        expect(consumer.offsets_for_times({partition: 2_500_000})[partition].offset, 2, "the offset of a time")
    finally:
        consumer.close()


def member(name: str, group: str) -> KafkaConsumer:
    return KafkaConsumer(
        name, bootstrap_servers=BOOTSTRAP, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
        session_timeout_ms=10_000, heartbeat_interval_ms=1000,
    )


def committed(offset: int) -> OffsetAndMetadata:
    return OffsetAndMetadata(offset, "", -1)


def group_commit() -> None:
    name, sent = topic("commit"), values("commit")
    send(name, [{"value": value} for value in sent])
    first = member(name, f"{name}-group")
    collect(first, 100)
    first.commit({TopicPartition(name, 0): committed(100)})
    first.close()
    second = member(name, f"{name}-group")
    expect(collect(second, 1)[0].offset, 100, "the first record after the commit")
    second.close()


def group_rebalance() -> None:
    name = topic("rebalance", 4)
    one, two = member(name, f"{name}-group"), member(name, f"{name}-group")
    deadline = time.monotonic() + PATIENCE_MS / 1000
    shares = lambda: sorted(len(it.assignment()) for it in (one, two))
    while shares() != [2, 2] and time.monotonic() < deadline:
        one.poll(100), two.poll(100)
    expect(shares(), [2, 2], "partitions of each member")
    two.close()
    while len(one.assignment()) != 4 and time.monotonic() < deadline:
        one.poll(100)
    expect(len(one.assignment()), 4, "partitions of the one that stays")
    one.close()


def admin_topics() -> None:
    name = topic("admin", 2)
    admin.create_partitions({name: NewPartitions(3)})
    def is_described() -> None:
        partitions = admin.describe_topics([name])[0]["partitions"]
        replicas = partitions[0].get("isr_nodes", partitions[0].get("isr"))
        expect((len(partitions), len(replicas)), (3, REPLICAS), "partitions and replicas")
    eventually(is_described)
    admin.delete_topics([name])
    expect(len(admin.describe_cluster()["brokers"]), REPLICAS, "nodes")


def admin_configs() -> None:
    name = topic("configs")
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs={"retention.ms": "123456"})])
    asked = [ConfigResource(ConfigResourceType.TOPIC, name)]
    eventually(lambda: expect("123456" in str(admin.describe_configs(asked)), True, "retention.ms"))


def admin_groups() -> None:
    name, group = topic("groups"), f"{PREFIX}-admin-group"
    send(name, [{"value": value} for value in values("groups")])
    it = member(name, group)
    collect(it, 10)
    it.commit({TopicPartition(name, 0): committed(10)})
    expect(group in str(admin.describe_groups([group])), True, "it is described")
    it.close()
    expect(group in str(admin.list_groups()), True, "it is listed")
    expect("10" in str(admin.list_group_offsets(group)), True, "what is committed")
    admin.delete_groups([group])


run("kafka-python", kafka.__version__, {
    **{f"produce {codec}": lambda codec=codec: produce(codec) for codec in CODECS},
    "idempotent produce": idempotent,
    "headers": headers,
    "offsets by time": offsets,
    "group: commit, resume": group_commit,
    "group: rebalance": group_rebalance,
    "admin: topics": admin_topics,
    "admin: configs": admin_configs,
    "admin: groups": admin_groups,
})
