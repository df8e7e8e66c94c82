"""kafka-python, a client in Python alone."""
import sys
import time

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import AbortTransactionSpec, ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.structs import OffsetAndMetadata

from driver import CODECS, Absent, eventually, expect, run, values, while_killed

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


def joining(group: str, **settings) -> KafkaConsumer:
    """A member that has not said yet of which topics."""
    return KafkaConsumer(
        bootstrap_servers=BOOTSTRAP, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
        session_timeout_ms=10_000, heartbeat_interval_ms=1000, **settings,
    )


def member(name: str, group: str) -> KafkaConsumer:
    consumer = joining(group)
    consumer.subscribe([name])
    return consumer


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


def group_pattern() -> None:
    earlier = topic("pattern-earlier")
    send(earlier, [{"value": b"earlier"}])
    it = joining(f"{PREFIX}-pattern-group", metadata_max_age_ms=1000)
    it.subscribe(pattern=f"^{PREFIX}-pattern-.*")
    expect(collect(it, 1)[0].topic, earlier, "the topic that was there")
    it.commit()
    later = topic("pattern-later")
    send(later, [{"value": b"later"}])
    expect(collect(it, 1)[0].topic, later, "the topic that came later")
    it.close()


def no_consumer_protocol() -> None:
    raise Absent("kafka-python has the classic protocol only")


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


def transactional(name: str) -> KafkaProducer:
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id=name)
    producer.init_transactions()
    return producer


def read_values(name: str, count: int, isolation: str, partition: int = 0) -> list[bytes]:
    consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest", isolation_level=isolation)
    consumer.assign([TopicPartition(name, partition)])
    try:
        return [record.value for record in collect(consumer, count)]
    finally:
        consumer.close()


def tx_commit() -> None:
    name = topic("tx-commit", 2)
    producer = transactional(name)
    producer.begin_transaction()
    producer.send(name, b"a", partition=0)
    producer.send(name, b"b", partition=1)
    producer.flush(PATIENCE_MS / 1000)
    consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest", isolation_level="read_committed")
    consumer.assign([TopicPartition(name, 0)])
    expect(consumer.poll(500), {}, "records of an open transaction")
    consumer.close()
    producer.commit_transaction()
    producer.close()
    expect(read_values(name, 1, "read_committed"), [b"a"], "what is committed in the first")
    expect(read_values(name, 1, "read_committed", 1), [b"b"], "what is committed in the second")


def tx_abort() -> None:
    name = topic("tx-abort")
    producer = transactional(name)
    for value in [b"a", b"aborted", b"b"]:
        producer.begin_transaction()
        producer.send(name, value, partition=0)
        producer.flush(PATIENCE_MS / 1000)
        producer.abort_transaction() if value == b"aborted" else producer.commit_transaction()
    producer.close()
    expect(read_values(name, 2, "read_committed"), [b"a", b"b"], "what is committed")
    expect(read_values(name, 3, "read_uncommitted"), [b"a", b"aborted", b"b"], "all")


def tx_offsets() -> None:
    source, target, sent = topic("tx-from"), topic("tx-to"), values("tx")
    send(source, [{"value": value} for value in sent])
    producer = transactional(target)
    for first, count, commits in [(0, 100, True), (100, 100, False), (100, 200, True)]:
        consumer = member(source, f"{source}-group")
        records = collect(consumer, count)
        expect(records[0].offset, first, "where the group goes on")
        producer.begin_transaction()
        for record in records:
            producer.send(target, record.value, partition=0)
        offsets = {TopicPartition(source, 0): committed(first + count)}
        producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
        producer.commit_transaction() if commits else producer.abort_transaction()
        consumer.close()
    producer.close()
    expect(read_values(target, len(sent), "read_committed"), sent, "what was made of it")
    expect(f"offset={len(sent)}" in str(admin.list_group_offsets(f"{source}-group")), True, "what is committed")


def tx_fencing() -> None:
    name = topic("tx-fencing")
    older = transactional(name)
    older.begin_transaction()
    older.send(name, b"older", partition=0)
    older.flush(PATIENCE_MS / 1000)
    newer = transactional(name)
    newer.begin_transaction()
    newer.send(name, b"newer", partition=0)
    try:
        older.commit_transaction()
    except kafka.errors.KafkaError as failure:
        fenced = (kafka.errors.ProducerFencedError, kafka.errors.InvalidProducerEpochError)
        expect(isinstance(failure, fenced), True, f"the older one is fenced, not refused by {failure!r}")
    else:
        raise AssertionError("the older one is not fenced")
    newer.commit_transaction()
    older.close(0), newer.close()
    expect(read_values(name, 1, "read_committed"), [b"newer"], "what is committed")


def tx_admin() -> None:
    name, partition = topic("tx-admin"), TopicPartition(f"{PREFIX}-tx-admin", 0)
    producer = transactional(name)
    producer.begin_transaction()
    producer.send(name, b"hanging", partition=0)
    producer.flush(PATIENCE_MS / 1000)
    described = admin.describe_transactions([name])[name]
    expect((described.state, list(described.topic_partitions)), ("Ongoing", [partition]), "the transaction")
    eventually(lambda: expect(name in str(admin.list_transactions()), True, "it is listed"))
    (active,) = admin.describe_producers([partition])[partition].active_producers
    expect(active.current_transaction_start_offset, 0, "where its transaction begins")
    admin.abort_transaction(AbortTransactionSpec(partition, active.producer_id, active.producer_epoch))
    producer.abort_transaction()
    producer.begin_transaction()
    producer.send(name, b"after it", partition=0)
    producer.commit_transaction()
    producer.close()
    expect(read_values(name, 1, "read_committed"), [b"after it"], "what is committed")


def node_killed() -> None:
    name, sent = topic("killed"), []
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, acks="all", enable_idempotence=True)
    consumer = member(name, f"{name}-group")
    def poll() -> list:
        records = [record for each in consumer.poll(5).values() for record in each]
        return [(record.offset, record.value) for record in records]
    leader = lambda: admin.describe_topics([name])[0]["partitions"][0]["leader_id"]
    count = while_killed(leader, lambda value: sent.append(producer.send(name, value, partition=0)), poll)
    for future in sent:
        future.get(PATIENCE_MS / 1000)
    consumer.commit({TopicPartition(name, 0): committed(count)})
    consumer.close(), producer.close()
    expect(f"offset={count}" in str(admin.list_group_offsets(f"{name}-group")), True, "what is committed")


run("kafka-python", kafka.__version__, {
    **{f"produce {codec}": lambda codec=codec: produce(codec) for codec in CODECS},
    "idempotent produce": idempotent,
    "headers": headers,
    "offsets by time": offsets,
    "group: commit, resume": group_commit,
    "group: rebalance": group_rebalance,
    "group: consumer protocol": no_consumer_protocol,
    "group: topics by pattern": group_pattern,
    "admin: topics": admin_topics,
    "admin: configs": admin_configs,
    "admin: groups": admin_groups,
    "transactions: commit": tx_commit,
    "transactions: abort": tx_abort,
    "transactions: offsets": tx_offsets,
    "transactions: fencing": tx_fencing,
    "admin: transactions": tx_admin,
    "node killed": node_killed,
    "group: node killed (consumer protocol)": no_consumer_protocol,
})
