"""aiokafka, a client for asyncio."""
import asyncio
import sys

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from driver import CODECS, Absent, expect, kill, run, values

BOOTSTRAP, PREFIX, REPLICAS = sys.argv[1], sys.argv[2], int(sys.argv[3])
PATIENCE = 60


class Admin:
    async def __aenter__(self) -> AIOKafkaAdminClient:
        self.client = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
        await self.client.start()
        return self.client

    async def __aexit__(self, *_) -> None:
        await self.client.close()


async def topic(name: str, partitions: int = 1) -> str:
    name = f"{PREFIX}-{name}"
    async with Admin() as admin:
        await admin.create_topics([NewTopic(name, partitions, REPLICAS)])
    return name


async def send(name: str, sent: list, **settings) -> None:
    """`sent` are keyword arguments of `send`."""
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, acks="all", **settings)
    await producer.start()
    try:
        futures = [await producer.send(name, partition=0, **record) for record in sent]
        await asyncio.wait_for(asyncio.gather(*futures), PATIENCE)
    finally:
        await producer.stop()


async def collect(consumer: AIOKafkaConsumer, count: int) -> list:
    async def enough() -> list:
        found = []
        while len(found) < count:
            for records in (await consumer.getmany(timeout_ms=1000, max_records=count - len(found))).values():
                found.extend(records)
        return found
    return await asyncio.wait_for(enough(), PATIENCE)


async def read(name: str, count: int) -> list:
    consumer = AIOKafkaConsumer(bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(name, 0)])
        return await collect(consumer, count)
    finally:
        await consumer.stop()


async def produce(codec: str) -> None:
    name, sent = await topic(f"produce-{codec}"), values(codec)
    await send(name, [{"value": value} for value in sent], compression_type=None if codec == "none" else codec)
    expect([record.value for record in await read(name, len(sent))], sent, "values")


async def idempotent() -> None:
    name, sent = await topic("idempotent"), values("once")
    await send(name, [{"value": value} for value in sent], enable_idempotence=True)
    found = await read(name, len(sent))
    expect([(record.offset, record.value) for record in found], list(enumerate(sent)), "records")


async def headers() -> None:
    name, sent = await topic("headers"), [("a", b"1"), ("a", b"\x00\xff")]
    await send(name, [{"key": b"k", "value": b"v", "headers": sent}])
    found = (await read(name, 1))[0]
    expect((found.key, found.value, list(found.headers)), (b"k", b"v", sent), "the record")


async def offsets() -> None:
    name = await topic("offsets")
    await send(name, [{"value": b"x", "timestamp_ms": 1_000_000 * (number + 1)} for number in range(5)])
    consumer, partition = AIOKafkaConsumer(bootstrap_servers=BOOTSTRAP), TopicPartition(name, 0)
    await consumer.start()
    try:
        expect((await consumer.beginning_offsets([partition]))[partition], 0, "first")
        expect((await consumer.end_offsets([partition]))[partition], 5, "end")
        expect((await consumer.offsets_for_times({partition: 2_500_000}))[partition].offset, 2, "the offset of a time")
    finally:
        await consumer.stop()


async def joining(group: str, **settings) -> AIOKafkaConsumer:
    """A member that has not said yet of which topics."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=BOOTSTRAP, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
        session_timeout_ms=10_000, heartbeat_interval_ms=1000, **settings,
    )
    await consumer.start()
    return consumer


async def member(name: str, group: str) -> AIOKafkaConsumer:
    consumer = await joining(group)
    consumer.subscribe([name])
    return consumer


async def group_commit() -> None:
    name, sent = await topic("commit"), values("commit")
    await send(name, [{"value": value} for value in sent])
    first = await member(name, f"{name}-group")
    await collect(first, 100)
    await first.commit({TopicPartition(name, 0): 100})
    await first.stop()
    second = await member(name, f"{name}-group")
    expect((await collect(second, 1))[0].offset, 100, "the first record after the commit")
    await second.stop()


async def group_rebalance() -> None:
    name = await topic("rebalance", 4)
    one, two = await member(name, f"{name}-group"), await member(name, f"{name}-group")

    async def until(shares: list, *members) -> None:
        while sorted(len(it.assignment()) for it in members) != shares:
            await asyncio.gather(*(it.getmany(timeout_ms=100) for it in members))
    await asyncio.wait_for(until([2, 2], one, two), PATIENCE)
    await two.stop()
    await asyncio.wait_for(until([4], one), PATIENCE)
    await one.stop()


async def group_pattern() -> None:
    earlier = await topic("pattern-earlier")
    await send(earlier, [{"value": b"earlier"}])
    it = await joining(f"{PREFIX}-pattern-group", metadata_max_age_ms=1000)
    it.subscribe(pattern=f"^{PREFIX}-pattern-.*")
    expect((await collect(it, 1))[0].topic, earlier, "the topic that was there")
    await it.commit()
    later = await topic("pattern-later")
    await send(later, [{"value": b"later"}])
    expect((await collect(it, 1))[0].topic, later, "the topic that came later")
    await it.stop()


async def no_consumer_protocol() -> None:
    raise Absent("aiokafka has the classic protocol only")


async def eventually(check) -> None:
    """As the other drivers' of that name: for ten seconds."""
    deadline = asyncio.get_running_loop().time() + 10
    while True:
        try:
            return await check()
        except Exception:  # noqa: BLE001: the last one is the outcome
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.05)


async def admin_topics() -> None:
    name = await topic("admin", 2)
    async with Admin() as admin:
        await admin.create_partitions({name: NewPartitions(3)})
        async def is_described() -> None:
            partitions = (await admin.describe_topics([name]))[0]["partitions"]
            expect((len(partitions), len(partitions[0]["isr"])), (3, REPLICAS), "partitions and replicas")
        await eventually(is_described)
        await admin.delete_topics([name])
        expect(len((await admin.describe_cluster())["brokers"]), REPLICAS, "nodes")


async def admin_configs() -> None:
    name = await topic("configs")
    async with Admin() as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs={"retention.ms": "123456"})])
        async def is_set() -> None:
            found = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
            expect("123456" in str(found), True, "retention.ms")
        await eventually(is_set)


async def admin_groups() -> None:
    name, group = await topic("groups"), f"{PREFIX}-admin-group"
    await send(name, [{"value": value} for value in values("groups")])
    it = await member(name, group)
    await collect(it, 10)
    await it.commit({TopicPartition(name, 0): 10})
    async with Admin() as admin:
        expect(group in str(await admin.describe_consumer_groups([group])), True, "it is described")
        await it.stop()
        expect(group in str(await admin.list_consumer_groups()), True, "it is listed")
        found = await admin.list_consumer_group_offsets(group)
        expect(found[TopicPartition(name, 0)].offset, 10, "what is committed")


async def transactional(name: str) -> AIOKafkaProducer:
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id=name)
    await producer.start()
    return producer


async def read_values(name: str, count: int, isolation: str, partition: int = 0) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest", isolation_level=isolation)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(name, partition)])
        return [record.value for record in await collect(consumer, count)]
    finally:
        await consumer.stop()


async def tx_commit() -> None:
    name = await topic("tx-commit", 2)
    producer = await transactional(name)
    await producer.begin_transaction()
    await producer.send_and_wait(name, b"a", partition=0)
    await producer.send_and_wait(name, b"b", partition=1)
    consumer = AIOKafkaConsumer(bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest", isolation_level="read_committed")
    await consumer.start()
    consumer.assign([TopicPartition(name, 0)])
    expect(await consumer.getmany(timeout_ms=500), {}, "records of an open transaction")
    await consumer.stop()
    await producer.commit_transaction()
    await producer.stop()
    expect(await read_values(name, 1, "read_committed"), [b"a"], "what is committed in the first")
    expect(await read_values(name, 1, "read_committed", 1), [b"b"], "what is committed in the second")


async def tx_abort() -> None:
    name = await topic("tx-abort")
    producer = await transactional(name)
    for value in [b"a", b"aborted", b"b"]:
        await producer.begin_transaction()
        await producer.send_and_wait(name, value, partition=0)
        await (producer.abort_transaction() if value == b"aborted" else producer.commit_transaction())
    await producer.stop()
    expect(await read_values(name, 2, "read_committed"), [b"a", b"b"], "what is committed")
    expect(await read_values(name, 3, "read_uncommitted"), [b"a", b"aborted", b"b"], "all")


async def committed_is(name: str, group: str, offset: int) -> None:
    async with Admin() as admin:
        found = await admin.list_consumer_group_offsets(group)
        expect(found[TopicPartition(name, 0)].offset, offset, "what is committed")


async def tx_offsets() -> None:
    source, target, sent = await topic("tx-from"), await topic("tx-to"), values("tx")
    group = f"{source}-group"
    await send(source, [{"value": value} for value in sent])
    producer = await transactional(target)
    for first, count, commits in [(0, 100, True), (100, 100, False), (100, 200, True)]:
        consumer = await member(source, group)
        records = await collect(consumer, count)
        expect(records[0].offset, first, "where the group goes on")
        await producer.begin_transaction()
        for record in records:
            await producer.send(target, record.value, partition=0)
        await producer.send_offsets_to_transaction({TopicPartition(source, 0): first + count}, group)
        await (producer.commit_transaction() if commits else producer.abort_transaction())
        await consumer.stop()
    await producer.stop()
    expect(await read_values(target, len(sent), "read_committed"), sent, "what was made of it")
    await committed_is(source, group, len(sent))


async def tx_fencing() -> None:
    name = await topic("tx-fencing")
    older = await transactional(name)
    await older.begin_transaction()
    await older.send_and_wait(name, b"older", partition=0)
    newer = await transactional(name)
    await newer.begin_transaction()
    await newer.send_and_wait(name, b"newer", partition=0)
    try:
        await older.commit_transaction()
    except aiokafka.errors.ProducerFenced:
        pass
    else:
        raise AssertionError("the older one is not fenced")
    await newer.commit_transaction()
    await newer.stop()
    expect(await read_values(name, 1, "read_committed"), [b"newer"], "what is committed")


async def no_tx_admin() -> None:
    raise Absent("aiokafka has no calls for it")


async def node_killed() -> None:
    """As the other drivers' `while_killed`."""
    name, found, sent, last, back = await topic("killed"), {}, [], None, None
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, acks="all", enable_idempotence=True)
    await producer.start()
    consumer = await member(name, f"{name}-group")

    async def poll() -> None:
        for records in (await consumer.getmany(timeout_ms=5)).values():
            found.update((record.offset, record.value) for record in records)
    while last is None or len(sent) < last:
        sent.append(await producer.send(name, f"killed {len(sent)}".encode(), partition=0))
        await poll()
        if len(sent) == 200:
            async with Admin() as admin:
                back = kill((await admin.describe_topics([name]))[0]["partitions"][0]["leader"])
        if last is None and back and back.is_set():
            last = len(sent) + 200
    await asyncio.wait_for(asyncio.gather(*sent), PATIENCE)

    async def rest() -> None:
        while len(found) < len(sent):
            await poll()
    await asyncio.wait_for(rest(), PATIENCE)
    expect(sorted(found.items()), [(at, f"killed {at}".encode()) for at in range(len(sent))], "records by offset")
    await consumer.commit({TopicPartition(name, 0): len(sent)})
    await consumer.stop()
    await producer.stop()
    await committed_is(name, f"{name}-group", len(sent))


def each(check, *arguments):
    return lambda: asyncio.run(check(*arguments))


run("aiokafka", aiokafka.__version__, {
    **{f"produce {codec}": each(produce, codec) for codec in CODECS},
    "idempotent produce": each(idempotent),
    "headers": each(headers),
    "offsets by time": each(offsets),
    "group: commit, resume": each(group_commit),
    "group: rebalance": each(group_rebalance),
    "group: consumer protocol": each(no_consumer_protocol),
    "group: topics by pattern": each(group_pattern),
    "admin: topics": each(admin_topics),
    "admin: configs": each(admin_configs),
    "admin: groups": each(admin_groups),
    "transactions: commit": each(tx_commit),
    "transactions: abort": each(tx_abort),
    "transactions: offsets": each(tx_offsets),
    "transactions: fencing": each(tx_fencing),
    "admin: transactions": each(no_tx_admin),
    "node killed": each(node_killed),
    "group: node killed (consumer protocol)": each(no_consumer_protocol),
})
