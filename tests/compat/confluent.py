"""confluent-kafka for Python, which is librdkafka."""
import sys
import time

import confluent_kafka
from confluent_kafka import Consumer, Producer, TopicPartition, ConsumerGroupTopicPartitions
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from driver import CODECS, eventually, expect, run, values

BOOTSTRAP, PREFIX, REPLICAS = sys.argv[1], sys.argv[2], int(sys.argv[3])
PATIENCE = 60
BASE = {"bootstrap.servers": BOOTSTRAP}
admin = AdminClient(BASE)


def done(futures: dict) -> list:
    return [future.result(PATIENCE) for future in futures.values()]


def topic(name: str, partitions: int = 1) -> str:
    name = f"{PREFIX}-{name}"
    done(admin.create_topics([NewTopic(name, partitions, REPLICAS)]))
    return name


def send(name: str, sent: list, **settings) -> None:
    """`sent` are keyword arguments of `produce`."""
    failures = []
    producer = Producer({**BASE, "acks": "all", **{key.replace("_", "."): value for key, value in settings.items()}})
    for record in sent:
        producer.produce(name, on_delivery=lambda error, _: error and failures.append(str(error)), **record)
    expect(producer.flush(PATIENCE), 0, "records left over")
    expect(failures, [], "deliveries")


def collect(consumer: Consumer, count: int) -> list:
    found, deadline = [], time.monotonic() + PATIENCE
    while len(found) < count and time.monotonic() < deadline:
        for message in consumer.consume(count - len(found), 1.0):
            if message.error():
                raise RuntimeError(str(message.error()))
            found.append(message)
    expect(len(found), count, "records read")
    return found


def read(name: str, count: int) -> list:
    consumer = Consumer({**BASE, "group.id": f"{name}-reader", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(name, 0, 0)])
        return collect(consumer, count)
    finally:
        consumer.close()


def produce(codec: str) -> None:
    name, sent = topic(f"produce-{codec}"), values(codec)
    send(name, [{"value": value} for value in sent], compression_type=codec)
    expect([message.value() for message in read(name, len(sent))], sent, "values")


def idempotent() -> None:
    name, sent = topic("idempotent"), values("once")
    send(name, [{"value": value, "partition": 0} for value in sent], enable_idempotence=True)
    found = read(name, len(sent))
    expect([message.value() for message in found], sent, "values")
    expect([message.offset() for message in found], list(range(len(sent))), "offsets")


def headers() -> None:
    name, sent = topic("headers"), [("a", b"1"), ("a", b"\x00\xff"), ("none", None)]
    send(name, [{"key": b"k", "value": None, "headers": sent}])
    found = read(name, 1)[0]
    expect((found.key(), found.value(), found.headers()), (b"k", None, sent), "the record")


def offsets() -> None:
    name = topic("offsets")
    send(name, [{"value": b"x", "timestamp": 1_000_000 * (number + 1)} for number in range(5)])
    consumer = Consumer({**BASE, "group.id": f"{name}-reader"})
    try:
        expect(consumer.get_watermark_offsets(TopicPartition(name, 0), PATIENCE), (0, 5), "first and last")
        found = consumer.offsets_for_times([TopicPartition(name, 0, 2_500_000)], PATIENCE)
        expect(found[0].offset, 2, "the offset of a time")
    finally:
        consumer.close()


def member(name: str, group: str) -> Consumer:
    consumer = Consumer({
        **BASE, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
        "session.timeout.ms": 10_000,
    })
    consumer.subscribe([name])
    return consumer


def group_commit() -> None:
    name, sent = topic("commit"), values("commit")
    send(name, [{"value": value} for value in sent])
    first = member(name, f"{name}-group")
    collect(first, 100)
    first.commit(offsets=[TopicPartition(name, 0, 100)], asynchronous=False)
    first.close()
    second = member(name, f"{name}-group")
    expect(collect(second, 1)[0].offset(), 100, "the first record after the commit")
    second.close()


def group_rebalance() -> None:
    name = topic("rebalance", 4)
    one, two = member(name, f"{name}-group"), member(name, f"{name}-group")
    try:
        deadline = time.monotonic() + PATIENCE
        shares = lambda: sorted(len(it.assignment()) for it in (one, two))
        while shares() != [2, 2] and time.monotonic() < deadline:
            one.poll(0.1), two.poll(0.1)
        expect(shares(), [2, 2], "partitions of each member")
        two.close()
        while len(one.assignment()) != 4 and time.monotonic() < deadline:
            one.poll(0.1)
        expect(len(one.assignment()), 4, "partitions of the one that stays")
    finally:
        one.close()


def admin_topics() -> None:
    name = topic("admin", 2)
    eventually(lambda: expect(len(admin.list_topics(name, PATIENCE).topics[name].partitions), 2, "partitions"))
    done(admin.create_partitions([NewPartitions(name, 3)]))
    def is_described() -> None:
        described = done(admin.describe_topics(confluent_kafka.TopicCollection([name])))[0]
        expect((len(described.partitions), len(described.partitions[0].isr)), (3, REPLICAS), "partitions and replicas")
    eventually(is_described)
    done(admin.delete_topics([name]))
    cluster = admin.describe_cluster().result(PATIENCE)
    expect(len(cluster.nodes), REPLICAS, "nodes")


def admin_configs() -> None:
    name = topic("configs")
    def resource(**more): return ConfigResource(ResourceType.TOPIC, name, **more)
    change = ConfigEntry("retention.ms", "123456", incremental_operation=AlterConfigOpType.SET)
    done(admin.incremental_alter_configs([resource(incremental_configs=[change])]))
    def is_set() -> None:
        found = done(admin.describe_configs([resource()]))[0]
        expect(found["retention.ms"].value, "123456", "retention.ms")
    eventually(is_set)
    found = done(admin.describe_configs([ConfigResource(ResourceType.BROKER, "1")]))[0]
    expect(found["node.id"].value, "1", "node.id")


def admin_groups() -> None:
    name, group = topic("groups"), f"{PREFIX}-admin-group"
    send(name, [{"value": value} for value in values("groups")])
    it = member(name, group)
    collect(it, 10)
    it.commit(offsets=[TopicPartition(name, 0, 10)], asynchronous=False)
    described = done(admin.describe_consumer_groups([group]))[0]
    expect((described.state.name, len(described.members)), ("STABLE", 1), "the group")
    it.close()
    listed = admin.list_consumer_groups().result(PATIENCE)
    expect(group in [each.group_id for each in listed.valid], True, "it is listed")
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(name, 0)])
    committed = done(admin.list_consumer_group_offsets([asked]))[0]
    expect(committed.topic_partitions[0].offset, 10, "what is committed")
    changed = ConsumerGroupTopicPartitions(group, [TopicPartition(name, 0, 3)])
    done(admin.alter_consumer_group_offsets([changed]))
    done(admin.delete_consumer_groups([group]))


run("confluent-kafka (Python)", f"{confluent_kafka.version()[0] if isinstance(confluent_kafka.version(), tuple) else confluent_kafka.version()}, librdkafka {confluent_kafka.libversion()[0]}", {
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
