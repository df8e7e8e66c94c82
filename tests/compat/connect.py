"""Kafka Connect: lines of a file go through a topic to another file, by a standalone worker and by a distributed one."""
import json
import os
import socket
import sys
import tempfile
import urllib.error
import urllib.request

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import ConfigResource, ResourceType

from apps import PATIENCE, Cluster, Program, Reader, version
from driver import expect, run

BOOTSTRAP, PREFIX, REPLICAS = sys.argv[1], sys.argv[2], int(sys.argv[3])
cluster = Cluster(BOOTSTRAP, REPLICAS)
folder = tempfile.TemporaryDirectory()
WORKER = {
    "bootstrap.servers": BOOTSTRAP,
    "key.converter": "org.apache.kafka.connect.storage.StringConverter",
    "value.converter": "org.apache.kafka.connect.storage.StringConverter",
    "offset.flush.interval.ms": 500,
    # A sink's consumer asks for the topic before the source has made it.
    "consumer.metadata.max.age.ms": 1000,
}


def path(name: str) -> str:
    return os.path.join(folder.name, name)


def properties(name: str, values: dict) -> str:
    with open(path(name), "w") as file:
        file.writelines(f"{key}={value}\n" for key, value in values.items())
    return path(name)


def source(topic: str) -> dict:
    connector = "org.apache.kafka.connect.file.FileStreamSourceConnector"
    return {"name": f"{topic}-source", "connector.class": connector, "tasks.max": 1, "file": path(f"{topic}.from"), "topic": topic}


def sink(topic: str) -> dict:
    connector = "org.apache.kafka.connect.file.FileStreamSinkConnector"
    return {"name": f"{topic}-sink", "connector.class": connector, "tasks.max": 1, "file": path(f"{topic}.to"), "topics": topic}


def write(topic: str, first: int, count: int) -> None:
    with open(path(f"{topic}.from"), "a") as file:
        file.writelines(f"line {number}\n" for number in range(first, first + count))


def lines(count: int) -> list[str]:
    return [f"line {number}" for number in range(count)]


def written(topic: str) -> list[str]:
    try:
        with open(path(f"{topic}.to")) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def committed(topic: str) -> int:
    asked = ConsumerGroupTopicPartitions(f"connect-{topic}-sink", [TopicPartition(topic, 0)])
    (future,) = cluster.admin.list_consumer_group_offsets([asked]).values()
    return future.result(PATIENCE).topic_partitions[0].offset


def standalone(topic: str) -> Program:
    worker = WORKER | {"offset.storage.file.filename": path(f"{topic}.offsets"), "listeners": "http://127.0.0.1:0"}
    files = [properties(f"{topic}.worker", worker), properties(f"{topic}.source", source(topic)), properties(f"{topic}.sink", sink(topic))]
    return Program("org.apache.kafka.connect.cli.ConnectStandalone", *files)


def goes_on_alone() -> None:
    """A source that knows its place by a file, a sink by its group: stopped, and started again, each goes on where it was."""
    topic = cluster.topic(f"{PREFIX}-standalone", 1)
    for count in [200, 400]:
        write(topic, count - 200, 200)
        with standalone(topic) as worker:
            worker.until(lambda: len(written(topic)) >= count, f"{count} lines")
            worker.terminate()
        expect(written(topic), lines(count), "lines")
        expect(committed(topic), count, "what the sink has committed")


class Worker:
    """A distributed one; its three topics have names of their own for each cluster."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        name = lambda kind: f"{PREFIX}-connect-{kind}"
        self.topics = {kind: name(kind) for kind in ["configs", "offsets", "status"]}
        storage = {f"{kind.replace('configs', 'config').replace('offsets', 'offset')}.storage.topic": topic for kind, topic in self.topics.items()}
        factors = {key.replace(".topic", ".replication.factor"): REPLICAS for key in storage}
        self.file = properties("distributed.worker", WORKER | storage | factors | {
            "group.id": name("workers"), "listeners": f"http://127.0.0.1:{self.port}", "exactly.once.source.support": "enabled",
            "offset.storage.partitions": 5, "session.timeout.ms": 6000, "heartbeat.interval.ms": 1000,
            "rebalance.timeout.ms": 6000, "scheduled.rebalance.max.delay.ms": 0,
        })

    def start(self) -> Program:
        return Program("org.apache.kafka.connect.cli.ConnectDistributed", self.file)

    def ask(self, method: str, what: str, body: dict | None = None):
        """None while the worker is not ready for it."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{what}", data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as refused:
            if refused.code in (404, 409, 500, 503):
                return None
            raise RuntimeError(f"{method} {what}: {refused.read().decode()[:200]}") from refused
        except (urllib.error.URLError, ConnectionError):
            return None

    def run(self, program: Program, connector: dict) -> None:
        """Makes a connector, and waits until its task runs."""
        name, config = connector["name"], {key: str(value) for key, value in connector.items() if key != "name"}
        program.until(lambda: self.ask("PUT", f"/connectors/{name}/config", config), f"{name} is made")
        self.runs(program, name)

    def runs(self, program: Program, name: str) -> None:
        def running() -> bool:
            status = self.ask("GET", f"/connectors/{name}/status")
            tasks = status and status["tasks"]
            if tasks and tasks[0]["state"] == "FAILED":
                raise RuntimeError(tasks[0]["trace"][:250])
            return bool(tasks) and tasks[0]["state"] == "RUNNING"
        program.until(running, f"{name} runs")


distributed = Worker()
TOPIC = f"{PREFIX}-distributed"


def file_to_file() -> None:
    cluster.topic(TOPIC, 1)
    write(TOPIC, 0, 200)
    with distributed.start() as worker:
        distributed.run(worker, source(TOPIC))
        distributed.run(worker, sink(TOPIC))
        worker.until(lambda: len(written(TOPIC)) >= 200, "200 lines")
        worker.until(lambda: committed(TOPIC) > 0, "the sink has committed")
        worker.terminate()
    expect(written(TOPIC), lines(200), "lines")


def its_topics() -> None:
    for kind, partitions in {"configs": 1, "offsets": 5, "status": 5}.items():
        name = distributed.topics[kind]
        expect(len(cluster.topics()[name].partitions), partitions, f"partitions of {kind}")
        (future,) = cluster.admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)]).values()
        expect(future.result(PATIENCE)["cleanup.policy"].value, "compact", f"cleanup.policy of {kind}")


def killed() -> None:
    """What it knew lies in its topics: connectors, offsets. The source's records and offsets are of one transaction each."""
    reader = Reader(cluster, TOPIC, 1)
    write(TOPIC, 200, 2000)
    with distributed.start() as worker:
        worker.until(lambda: len(reader.records()) > 200, "records of the first")
    write(TOPIC, 2200, 100)
    with distributed.start() as worker:
        distributed.runs(worker, source(TOPIC)["name"])
        worker.until(lambda: len(reader.records()) >= 2300, "records of the second")
        worker.until(lambda: written(TOPIC)[-1:] == lines(2300)[-1:], "lines of the second")
        worker.terminate()
    expect([value for _, value in reader.records()], lines(2300), "records")
    # A sink is at least once: what it had not committed is written again.
    expect(list(dict.fromkeys(written(TOPIC))), lines(2300), "lines")


def administration() -> None:
    with distributed.start() as worker:
        name = source(TOPIC)["name"]
        distributed.runs(worker, name)
        found = worker.until(lambda: distributed.ask("GET", f"/connectors/{name}/offsets"), "its offsets")
        expect(found["offsets"][0]["offset"]["position"], os.path.getsize(path(f"{TOPIC}.from")), "where the source is")
        worker.until(lambda: distributed.ask("PUT", f"/connectors/{name}/stop") is not None, "it is stopped")
        worker.until(lambda: distributed.ask("DELETE", f"/connectors/{name}/offsets"), "its offsets are deleted")
        worker.until(lambda: distributed.ask("DELETE", f"/connectors/{name}") is not None, "it is deleted")
        worker.until(lambda: name not in (distributed.ask("GET", "/connectors") or [name]), "it is not listed")


run("Kafka Connect", version("connect-runtime"), {
    "standalone: stopped and started again": goes_on_alone,
    "distributed: file to file": file_to_file,
    "distributed: three compacted topics": its_topics,
    "distributed: killed and started again": killed,
    "distributed: offsets asked for, deleted": administration,
})
