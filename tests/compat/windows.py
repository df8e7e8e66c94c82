"""What the drivers of Flink and Spark share: a topic of numbers, and what is to come of them by key and windows of a second."""
import time
from collections import Counter, defaultdict

from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions

from apps import PATIENCE, Cluster
from driver import expect

KEYS = ["water", "head", "mill", "race", "weir", "sluice", "ford"]
STEP_MS = 20
# Where the numbers' time begins: lately, as what is older than a topic's retention is removed.
BEGIN_MS = (int(time.time()) - 1200) * 1000


class Numbers:
    """0, 1, 2 and so on, each as a record of its own time, dealt to the partitions in turn."""

    def __init__(self, cluster: Cluster, topic: str, partitions: int) -> None:
        self.cluster, self.topic = cluster, cluster.topic(topic, partitions)
        self.partitions, self.sent = partitions, 0
        self.last_ms = dict.fromkeys(range(partitions), 0)
        # By partition: (offset, time, number) of each record.
        self.records = defaultdict(list)
        self.windows = defaultdict(Counter)
        self.producer = self.new_producer()

    def new_producer(self) -> Producer:
        return Producer({"bootstrap.servers": self.cluster.bootstrap, "acks": "all", "enable.idempotence": True})

    def add_partition(self) -> None:
        self.partitions += 1
        (future,) = self.cluster.admin.create_partitions([NewPartitions(self.topic, self.partitions)]).values()
        future.result(PATIENCE)
        self.last_ms[self.partitions - 1] = 0
        # The old one would learn of it only after a while.
        self.producer = self.new_producer()

    def send(self, count: int, partitions: list[int] | None = None) -> None:
        """Some at a time: no partition is ahead of the others by more than that."""
        partitions = partitions or list(range(self.partitions))
        for begin in range(0, count, 100):
            for _ in range(begin, min(begin + 100, count)):
                self.one(partitions[self.sent % len(partitions)])
            expect(self.producer.flush(PATIENCE), 0, "records left over")

    def one(self, partition: int) -> None:
        number, time_ms, key = self.sent, BEGIN_MS + self.sent * STEP_MS, KEYS[self.sent % 7]
        self.producer.produce(self.topic, str(number).encode(), key.encode(), partition, timestamp=time_ms)
        self.records[partition].append((len(self.records[partition]), time_ms, number))
        self.last_ms[partition] = time_ms
        self.windows[time_ms // 1000 * 1000].update({(key, "count"): 1, (key, "sum"): number})
        self.sent += 1

    def wanted(self, until_ms: int) -> dict[str, str]:
        """Of the windows that end by then: `COUNT SUM` by `KEY@BEGIN`."""
        closed = {begin: window for begin, window in self.windows.items() if begin + 1000 <= until_ms}
        return {
            f"{key}@{begin}": f"{window[key, 'count']} {window[key, 'sum']}"
            for begin, window in closed.items() for key in KEYS if window[key, "count"]
        }

    def check_read(self, path: str) -> None:
        """A file of `record PARTITION OFFSET TIME NUMBER` and `sum PARTITION COUNT SUM` is right."""
        records, sums = defaultdict(list), {}
        with open(path) as file:
            for kind, partition, *values in map(str.split, file):
                if kind == "record":
                    records[int(partition)].append(tuple(map(int, values)))
                else:
                    expect(int(partition) in sums, False, f"sums of {partition} before")
                    sums[int(partition)] = tuple(map(int, values))
        for partition, wanted in self.records.items():
            expect(sorted(records[partition]), wanted, f"records of partition {partition}")
            expect(sums.get(partition), (len(wanted), sum(number for _, _, number in wanted)), f"count and sum of {partition}")
        expect(sorted(records), sorted(self.records), "partitions")

    def ends(self) -> list[tuple[int, int]]:
        return [(partition, len(self.records[partition])) for partition in range(self.partitions)]


def committed(cluster: Cluster, group: str, numbers: Numbers) -> list[tuple[int, int]]:
    """Up to where the group has come in each partition."""
    asked = [TopicPartition(numbers.topic, partition) for partition in range(numbers.partitions)]
    (future,) = cluster.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, asked)]).values()
    return sorted((each.partition, each.offset) for each in future.result(PATIENCE).topic_partitions)
