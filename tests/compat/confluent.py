"""confluent-kafka for Python, which is librdkafka."""
import sys
import time

import confluent_kafka
from confluent_kafka import Consumer, ConsumerGroupType, Producer, TopicPartition, ConsumerGroupTopicPartitions
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from driver import CODECS, Absent, eventually, expect, run, values, while_killed

BOOTSTRAP, PREFIX, REPLICAS = sys.argv[1], sys.argv[2], int(sys.argv[3])
PATIENCE = 60
BASE = {"bootstrap.servers": BOOTSTRAP}
CLASSIC = {"session.timeout.ms": 10_000}
# How long a member may be silent is the coordinator's to say.
CONSUMER_PROTOCOL = {"group.protocol": "consumer"}
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


def member(name: str, group: str, settings: dict = CLASSIC) -> Consumer:
    consumer = Consumer({**BASE, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False, **settings})
    consumer.subscribe([name])
    return consumer


def group_commit(tag: str = "commit", settings: dict = CLASSIC) -> None:
    name, sent = topic(tag), values("commit")
    send(name, [{"value": value} for value in sent])
    first = member(name, f"{name}-group", settings)
    collect(first, 100)
    first.commit(offsets=[TopicPartition(name, 0, 100)], asynchronous=False)
    first.close()
    second = member(name, f"{name}-group", settings)
    expect(collect(second, 1)[0].offset(), 100, "the first record after the commit")
    second.close()


def group_rebalance(tag: str = "rebalance", settings: dict = CLASSIC) -> None:
    name = topic(tag, 4)
    one, two = member(name, f"{name}-group", settings), member(name, f"{name}-group", settings)
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


def expect_consumer_protocol(group: str) -> None:
    listed = admin.list_consumer_groups(types={ConsumerGroupType.CONSUMER}).result(PATIENCE)
    expect(group in [each.group_id for each in listed.valid], True, "it is a group of the consumer protocol")


def group_consumer_protocol() -> None:
    group_commit("commit-consumer", CONSUMER_PROTOCOL)
    group_rebalance("rebalance-consumer", CONSUMER_PROTOCOL)
    for tag in ["commit", "rebalance"]:
        expect_consumer_protocol(f"{PREFIX}-{tag}-consumer-group")


def group_pattern() -> None:
    earlier = topic("pattern-earlier")
    send(earlier, [{"value": b"earlier"}])
    it = member(f"^{PREFIX}-pattern-.*", f"{PREFIX}-pattern-group", {**CLASSIC, "topic.metadata.refresh.interval.ms": 1000})
    try:
        expect(collect(it, 1)[0].topic(), earlier, "the topic that was there")
        it.commit(asynchronous=False)
        later = topic("pattern-later")
        send(later, [{"value": b"later"}])
        expect(collect(it, 1)[0].topic(), later, "the topic that came later")
    finally:
        it.close()


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


def transactional(name: str) -> Producer:
    producer = Producer({**BASE, "transactional.id": name})
    producer.init_transactions(PATIENCE)
    return producer


def read_values(name: str, count: int, isolation: str, partition: int = 0) -> list[bytes]:
    consumer = Consumer({**BASE, "group.id": f"{name}-reader", "enable.auto.commit": False, "isolation.level": isolation})
    try:
        consumer.assign([TopicPartition(name, partition, 0)])
        return [message.value() for message in collect(consumer, count)]
    finally:
        consumer.close()


def tx_commit() -> None:
    name = topic("tx-commit", 2)
    producer = transactional(name)
    producer.begin_transaction()
    producer.produce(name, b"a", partition=0)
    producer.produce(name, b"b", partition=1)
    producer.flush(PATIENCE)
    consumer = Consumer({**BASE, "group.id": f"{name}-reader", "isolation.level": "read_committed"})
    consumer.assign([TopicPartition(name, 0, 0)])
    expect(consumer.consume(1, 0.5), [], "records of an open transaction")
    consumer.close()
    producer.commit_transaction(PATIENCE)
    expect(read_values(name, 1, "read_committed"), [b"a"], "what is committed in the first")
    expect(read_values(name, 1, "read_committed", 1), [b"b"], "what is committed in the second")


def tx_abort() -> None:
    name = topic("tx-abort")
    producer = transactional(name)
    for value in [b"a", b"aborted", b"b"]:
        producer.begin_transaction()
        producer.produce(name, value, partition=0)
        producer.flush(PATIENCE)
        producer.abort_transaction(PATIENCE) if value == b"aborted" else producer.commit_transaction(PATIENCE)
    expect(read_values(name, 2, "read_committed"), [b"a", b"b"], "what is committed")
    expect(read_values(name, 3, "read_uncommitted"), [b"a", b"aborted", b"b"], "all")


def tx_offsets() -> None:
    source, target, sent = topic("tx-from"), topic("tx-to"), values("tx")
    send(source, [{"value": value} for value in sent])
    producer = transactional(target)
    for first, count, commits in [(0, 100, True), (100, 100, False), (100, 200, True)]:
        consumer = member(source, f"{source}-group")
        records = collect(consumer, count)
        expect(records[0].offset(), first, "where the group goes on")
        producer.begin_transaction()
        for record in records:
            producer.produce(target, record.value(), partition=0)
        position = consumer.position(consumer.assignment())
        producer.send_offsets_to_transaction(position, consumer.consumer_group_metadata(), PATIENCE)
        producer.commit_transaction(PATIENCE) if commits else producer.abort_transaction(PATIENCE)
        consumer.close()
    expect(read_values(target, len(sent), "read_committed"), sent, "what was made of it")
    asked = ConsumerGroupTopicPartitions(f"{source}-group", [TopicPartition(source, 0)])
    committed = done(admin.list_consumer_group_offsets([asked]))[0]
    expect(committed.topic_partitions[0].offset, len(sent), "what is committed")


def tx_fencing() -> None:
    name = topic("tx-fencing")
    older = transactional(name)
    older.begin_transaction()
    older.produce(name, b"older", partition=0)
    older.flush(PATIENCE)
    newer = transactional(name)
    newer.begin_transaction()
    newer.produce(name, b"newer", partition=0)
    try:
        older.commit_transaction(PATIENCE)
    except confluent_kafka.KafkaException as failure:
        expect(failure.args[0].code(), confluent_kafka.KafkaError._FENCED, "why the older one is refused")
    else:
        raise AssertionError("the older one is not fenced")
    newer.commit_transaction(PATIENCE)
    expect(read_values(name, 1, "read_committed"), [b"newer"], "what is committed")


def node_killed(tag: str = "killed", settings: dict = CLASSIC) -> None:
    name = topic(tag)
    producer = Producer({**BASE, "enable.idempotence": True, "acks": "all"})
    consumer = member(name, f"{name}-group", settings)
    def produce_one(value: bytes) -> None:
        producer.produce(name, value, partition=0)
        producer.poll(0)
    def poll() -> list:
        found = consumer.consume(100, 0.005)
        consumer.commit(asynchronous=True) if found else None
        return [(it.offset(), it.value()) for it in found if not it.error()]
    def leader() -> int:
        return admin.list_topics(name, PATIENCE).topics[name].partitions[0].leader
    count = while_killed(leader, produce_one, poll)
    expect(producer.flush(PATIENCE), 0, "records left over")
    consumer.commit(offsets=[TopicPartition(name, 0, count)], asynchronous=False)
    consumer.close()
    asked = ConsumerGroupTopicPartitions(f"{name}-group", [TopicPartition(name, 0)])
    expect(done(admin.list_consumer_group_offsets([asked]))[0].topic_partitions[0].offset, count, "what is committed")


def node_killed_consumer_protocol() -> None:
    node_killed("killed-consumer", CONSUMER_PROTOCOL)
    expect_consumer_protocol(f"{PREFIX}-killed-consumer-group")


def no_tx_admin() -> None:
    raise Absent("librdkafka has no calls for it")


run("confluent-kafka (Python)", f"{confluent_kafka.version()[0] if isinstance(confluent_kafka.version(), tuple) else confluent_kafka.version()}, librdkafka {confluent_kafka.libversion()[0]}", {
    **{f"produce {codec}": lambda codec=codec: produce(codec) for codec in CODECS},
    "idempotent produce": idempotent,
    "headers": headers,
    "offsets by time": offsets,
    "group: commit, resume": group_commit,
    "group: rebalance": group_rebalance,
    "group: consumer protocol": group_consumer_protocol,
    "group: topics by pattern": group_pattern,
    "admin: topics": admin_topics,
    "admin: configs": admin_configs,
    "admin: groups": admin_groups,
    "transactions: commit": tx_commit,
    "transactions: abort": tx_abort,
    "transactions: offsets": tx_offsets,
    "transactions: fencing": tx_fencing,
    "admin: transactions": no_tx_admin,
    "node killed": node_killed,
    "group: node killed (consumer protocol)": node_killed_consumer_protocol,
})
