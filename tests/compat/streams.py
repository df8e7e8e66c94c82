"""Kafka Streams: an application that counts words by windows, exactly once. Its source is `java/streams`."""
import sys
import tempfile
import time
from collections import Counter, defaultdict

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import ConfigResource, ResourceType

from apps import PATIENCE, Cluster, Program, Reader, version
from driver import expect, run

BOOTSTRAP, PREFIX = sys.argv[1], sys.argv[2]
cluster = Cluster(BOOTSTRAP, int(sys.argv[3]))
PARTITIONS = 3
APPLICATION = f"{PREFIX}-app"
WORDS = ["water", "head", "mill", "race", "weir", "sluice", "ford"]
FROM, TO = f"{PREFIX}-lines", f"{PREFIX}-counts"
# Where the windows' time begins: lately, as what is older than a topic's retention is removed.
BEGIN_MS = (int(time.time()) - 600) // 10 * 10_000
folder = tempfile.TemporaryDirectory()
wanted = Counter()


def start() -> Program:
    return Program("WordCount", BOOTSTRAP, APPLICATION, FROM, TO, folder.name)


def send(first: int, count: int) -> None:
    """Lines of two words; 50 lines to a second of the windows' time."""
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "acks": "all", "enable.idempotence": True})
    for number in range(first, first + count):
        time_ms, words = BEGIN_MS + number * 20, [WORDS[number % 7], WORDS[number * 3 % 5]]
        producer.produce(FROM, " ".join(words).encode(), partition=number % PARTITIONS, timestamp=time_ms)
        wanted.update(f"{word}@{time_ms // 10_000 * 10_000}" for word in words)
    expect(producer.flush(PATIENCE), 0, "records left over")


def check(reader: Reader) -> None:
    """Every change of every count was told once, in order: 1, 2, 3 and so on."""
    told = defaultdict(list)
    for word, count in reader.records():
        told[word].append(int(count))
    expect({word: len(counts) for word, counts in told.items()}, dict(wanted), "counts")
    for word, counts in told.items():
        expect(counts, list(range(1, wanted[word] + 1)), f"the counts of {word}")


def counted() -> None:
    cluster.topic(FROM, PARTITIONS)
    cluster.topic(TO, PARTITIONS)
    send(0, 300)
    reader = Reader(cluster, TO, PARTITIONS)
    with start() as application:
        application.until(lambda: len(reader.records()) >= wanted.total(), "counts")
    check(reader)


def killed() -> None:
    """Its transaction is open when it is killed; the next one fences it, and begins where the last commit was."""
    reader = Reader(cluster, TO, PARTITIONS)
    before = wanted.total()
    send(300, 3000)
    with start() as application:
        application.until(lambda: len(reader.records()) > before, "counts of the first")
    with start() as application:
        application.until(lambda: len(reader.records()) >= wanted.total(), "counts of the second")
    check(reader)


def internal_topics() -> None:
    policies = {}
    for name, topic in cluster.topics().items():
        if name.startswith(f"{APPLICATION}-"):
            (future,) = cluster.admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)]).values()
            kind = name.rsplit("-", 1)[1]
            policies[kind] = set(future.result(PATIENCE)["cleanup.policy"].value.split(","))
            expect(len(topic.partitions), PARTITIONS, f"partitions of {name}")
    expect(policies, {"repartition": {"delete"}, "changelog": {"compact", "delete"}}, "its topics")


def purged() -> None:
    """What is counted is deleted from the topic in between, up to the last commit."""
    name = f"{APPLICATION}-words-repartition"
    reader = Reader(cluster, name, PARTITIONS).consumer
    def is_purged() -> bool:
        bounds = [reader.get_watermark_offsets(TopicPartition(name, each), PATIENCE) for each in range(PARTITIONS)]
        return any(low > 0 for low, _ in bounds)
    with start() as application:
        application.until(is_purged, "the beginning of a partition has moved")


run("Kafka Streams", version("kafka-streams"), {
    "windowed count, exactly once": counted,
    "killed and started again": killed,
    "repartition and changelog topics": internal_topics,
    "repartition topic is purged": purged,
})
