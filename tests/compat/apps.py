"""What the drivers of Kafka's Java programs share: processes that run until they are ended, and what is in a topic."""
import os
import re
import subprocess
import tempfile
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

# A program of several threads and consumers takes its time on a machine that is busy.
PATIENCE = 240


def version(jar: str) -> str:
    """Of the jar with that name on the class path."""
    # The class path is `FOLDER/*`, and perhaps more.
    return re.search(rf"{jar}-([\d.-]+)\.jar", " ".join(os.listdir(os.environ["CLASSPATH"].split("/*")[0]))).group(1)


class Program:
    """A Java program; what it says is kept for the case that it ends by itself."""

    def __init__(self, *line: str) -> None:
        self.said = tempfile.TemporaryFile()
        self.process = subprocess.Popen(["java", "-Xmx512m", *line], stdin=subprocess.DEVNULL, stdout=self.said, stderr=self.said)

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_) -> None:
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)

    def ends(self) -> None:
        """Waits for its end, which must be a good one."""
        if self.process.wait(PATIENCE) != 0:
            self.fail()

    def fail(self) -> None:
        self.said.seek(0)
        raise RuntimeError(f"it ended with {self.process.returncode}: {self.said.read().decode(errors='replace')[-250:]}")

    def until(self, holds, what: str):
        """What `holds` answers as soon as that is something, while the program runs."""
        deadline = time.monotonic() + PATIENCE
        while True:
            if self.process.poll() is not None:
                self.fail()
            if found := holds():
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {PATIENCE} s: {what}")
            time.sleep(0.1)


class Cluster:
    def __init__(self, bootstrap: str, replicas: int) -> None:
        self.bootstrap, self.replicas = bootstrap, replicas
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def topic(self, name: str, partitions: int) -> str:
        for future in self.admin.create_topics([NewTopic(name, partitions, self.replicas)]).values():
            future.result(PATIENCE)
        return name

    def topics(self) -> dict:
        return self.admin.list_topics(timeout=PATIENCE).topics


class Reader:
    """All that is committed in a topic, in the order of its partitions; or all that is there."""

    def __init__(self, cluster: Cluster, name: str, partitions: int, isolation: str = "read_committed") -> None:
        self.found = []
        self.consumer = Consumer({
            "bootstrap.servers": cluster.bootstrap, "group.id": f"{name}-reader", "enable.auto.commit": False,
            "isolation.level": isolation,
        })
        self.consumer.assign([TopicPartition(name, partition, 0) for partition in range(partitions)])

    def records(self) -> list:
        for message in self.consumer.consume(1000, 0.2):
            if message.error():
                raise KafkaException(message.error())
            self.found.append((message.key() and message.key().decode(), message.value().decode()))
        return self.found
