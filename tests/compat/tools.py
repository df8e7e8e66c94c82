"""Kafka's own command-line tools, by their main classes. What they print is read as an operator would."""
import json
import re
import subprocess
import sys
import tempfile

from confluent_kafka import Producer

from apps import version
from driver import eventually, expect, run

BOOTSTRAP, PREFIX, REPLICAS = sys.argv[1], sys.argv[2], int(sys.argv[3])
PATIENCE = 120
# Quick to start, as each runs for a moment only; the class path is in the environment.
JAVA = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
PACKAGE = "org.apache.kafka.tools."


def line(name: str, *arguments) -> list[str]:
    return [*JAVA, PACKAGE + name, *map(str, arguments)]


def call(command: list[str], stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=PATIENCE)
    said = done.stdout + done.stderr
    if done.returncode != 0 or re.search(r"^Error|Exception:", said, re.MULTILINE):
        raise RuntimeError(f"{' '.join(command[len(JAVA):])}: {done.returncode}: {said.strip()[-250:]}")
    return done.stdout


def tool(name: str, *arguments) -> str:
    return call(line(name, "--bootstrap-server", BOOTSTRAP, *arguments))


def subcommand(name: str, *arguments) -> str:
    """Of a tool that asks for the servers behind what it is to do."""
    return call(line(name, *arguments, "--bootstrap-server", BOOTSTRAP))


def shows(found: str, *patterns: str) -> None:
    """Each pattern is in what was printed, whatever white space is in it."""
    found = re.sub(r"[ \t]+", " ", found)
    for pattern in patterns:
        if not re.search(pattern, found):
            raise AssertionError(f"`{pattern}` is not in: {found.strip()[-200:]}")


def topic(name: str, partitions: int = 1) -> str:
    name = f"{PREFIX}-{name}"
    tool("TopicCommand", "--create", "--topic", name, "--partitions", partitions, "--replication-factor", REPLICAS)
    return name


def send(name: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "acks": "all"})
    for number in range(count):
        producer.produce(name, f"value {number}".encode(), partition=0)
    expect(producer.flush(PATIENCE), 0, "records left over")


def file(text: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as made:
        made.write(text)
    return made.name


def topics() -> None:
    name = topic("topics", 2)
    shows(tool("TopicCommand", "--list"), rf"(?m)^{name}$")
    tool("TopicCommand", "--alter", "--topic", name, "--partitions", 3)
    described = lambda: shows(tool("TopicCommand", "--describe", "--topic", name), "PartitionCount: 3", f"ReplicationFactor: {REPLICAS}")
    eventually(described)
    shows(tool("TopicCommand", "--describe", "--under-replicated-partitions", "--topic", name), r"^\s*$")
    tool("TopicCommand", "--delete", "--topic", name)


def configs() -> None:
    asked = ["--entity-type", "topics", "--entity-name", topic("configs")]
    tool("ConfigCommand", "--alter", *asked, "--add-config", "retention.ms=123456,cleanup.policy=[compact,delete]")
    wanted = ["retention.ms=123456 .*DYNAMIC_TOPIC_CONFIG", "cleanup.policy=compact,delete"]
    eventually(lambda: shows(tool("ConfigCommand", "--describe", *asked), *wanted))
    tool("ConfigCommand", "--alter", *asked, "--delete-config", "retention.ms")
    shows(tool("ConfigCommand", "--describe", "--entity-type", "brokers", "--entity-name", 1, "--all"), "node.id=1 ")


def consumer_groups() -> None:
    name, group = topic("groups"), f"{PREFIX}-tools-group"
    send(name, 20)
    tool("consumer.ConsoleConsumer", "--topic", name, "--group", group, "--from-beginning", "--max-messages", 20, "--timeout-ms", 60_000)
    groups = lambda *more: tool("consumer.group.ConsumerGroupCommand", *more)
    shows(groups("--list"), rf"(?m)^{group}$")
    shows(groups("--describe", "--group", group), rf"{group} {name} 0 20 20 0 ")
    shows(groups("--describe", "--group", group, "--state"), r"Empty 0")
    back = ["--reset-offsets", "--group", group, "--topic", name, "--to-offset", 5]
    shows(groups(*back, "--dry-run"), rf"{group} {name} 0 5")
    shows(groups("--describe", "--group", group), rf"{group} {name} 0 20 20 0 ")
    shows(groups(*back, "--execute"), rf"{group} {name} 0 5")
    shows(groups("--describe", "--group", group), rf"{group} {name} 0 5 20 15 ")
    shows(groups("--delete", "--group", group), "was successful")


def get_offsets() -> None:
    name = topic("offsets", 2)
    send(name, 20)
    shows(tool("GetOffsetShell", "--topic", name), f"{name}:0:20\n", f"{name}:1:0\n")
    shows(tool("GetOffsetShell", "--topic-partitions", f"{name}:0", "--time", "earliest"), f"^{name}:0:0\n")


def delete_records() -> None:
    name = topic("delete")
    send(name, 20)
    partition = {"topic": name, "partition": 0, "offset": 7}
    wanted = file(json.dumps({"partitions": [partition], "version": 1}))
    shows(tool("DeleteRecordsCommand", "--offset-json-file", wanted), f"partition: {name}-0 low_watermark: 7")
    shows(tool("GetOffsetShell", "--topic", name, "--time", "earliest"), f"{name}:0:7\n")


def log_dirs() -> None:
    name = topic("folders")
    send(name, 20)
    said = tool("LogDirsCommand", "--describe", "--topic-list", name)
    found = json.loads(re.search(r"^\{.*\}$", said, re.MULTILINE).group())
    partitions = [each["partition"] for broker in found["brokers"] for folder in broker["logDirs"] for each in folder["partitions"]]
    expect(partitions, [f"{name}-0"] * REPLICAS, "replicas in folders")


def leader_election() -> None:
    name = topic("election")
    said = tool("LeaderElectionCommand", "--election-type", "preferred", "--topic", name, "--partition", 0)
    shows(said, f"Valid replica already elected for partitions {name}-0|Successfully completed leader election.*{name}-0")


def metadata_quorum() -> None:
    shows(tool("MetadataQuorumCommand", "describe", "--status"), r"ClusterId: \S+", r"LeaderId: \d", r"CurrentVoters: \[")
    shows(tool("MetadataQuorumCommand", "describe", "--replication"), r"(?m)^\d .* Leader\s*$")


def features() -> None:
    shows(tool("FeatureCommand", "describe"), r"Feature: headwater.version")


def transactions() -> None:
    name = topic("transactions")
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "transactional.id": name})
    producer.init_transactions(PATIENCE)
    producer.begin_transaction()
    producer.produce(name, b"hanging", partition=0)
    producer.flush(PATIENCE)
    ask = lambda *more: tool("TransactionsCommand", *more)
    eventually(lambda: shows(ask("list"), rf"{name} \d+ \d+ Ongoing"))
    shows(ask("describe", "--transactional-id", name), rf"{name} \d+ \d+ Ongoing .*{name}-0")
    shows(ask("describe-producers", "--topic", name, "--partition", 0), r"(?m)^\d+ \d+ -1 0 \d+ 0\s*$")
    shows(ask("find-hanging", "--topic", name, "--partition", 0, "--max-transaction-timeout", 0), r"Topic")
    ask("abort", "--topic", name, "--partition", 0, "--start-offset", 0)
    producer.abort_transaction(PATIENCE)


def performance() -> None:
    name = topic("performance", 3)
    producer = ["--topic", name, "--num-records", 5000, "--record-size", 100, "--throughput", -1]
    shows(tool("ProducerPerformance", *producer, "--command-property", "acks=all"), "5000 records sent")
    found = tool("ConsumerPerformance", "--topic", name, "--num-records", 5000, "--hide-header", "--timeout", 60_000)
    expect(found.split(", ")[4], "5000", "records read")
    in_transactions = ["--transactional-id", f"{name}-transactions", "--transaction-duration-ms", 100]
    shows(tool("ProducerPerformance", *producer, *in_transactions), "5000 records sent")


def latency() -> None:
    name = topic("latency")
    said = call(line("EndToEndLatency", "--bootstrap-server", BOOTSTRAP, "--topic", name, "--num-records", 100, "--producer-acks", "all", "--record-size", 100))
    shows(said, "Avg latency: ", "Percentiles: ")


def told(said: str) -> list:
    return [json.loads(each) for each in said.splitlines() if each.startswith("{")]


def verifiable(protocol: str) -> None:
    """Each record is told of when it is acknowledged, and when it is read."""
    name, group = topic(f"verifiable-{protocol}"), f"{PREFIX}-verifiable-{protocol}"
    produced = told(tool("VerifiableProducer", "--topic", name, "--max-messages", 200, "--acks", -1))
    expect(sum(each["name"] == "producer_send_success" for each in produced), 200, "records acknowledged")
    read = ["--topic", name, "--group-id", group, "--group-protocol", protocol, "--max-messages", 200, "--reset-policy", "earliest"]
    consumed = told(tool("VerifiableConsumer", *read, "--verbose"))
    found = [(each["offset"], each["value"]) for each in consumed if each["name"] == "record_data"]
    expect(len(found), 200, "records read")
    expect(found, [(number, str(number)) for number in range(200)], "what is read")
    commits = [each["offsets"][0]["offset"] for each in consumed if each["name"] == "offsets_committed"]
    expect(commits[-1], 200, "what is committed")


def console() -> None:
    name = topic("console")
    producer = line("ConsoleProducer", "--bootstrap-server", BOOTSTRAP, "--topic", name, "--reader-property", "parse.key=true")
    call(producer, stdin="k\tone\nk\ttwo\n")
    read = ["--topic", name, "--from-beginning", "--max-messages", 2, "--formatter-property", "print.key=true"]
    expect(tool("consumer.ConsoleConsumer", *read), "k\tone\nk\ttwo\n", "what is read")


def reassignment() -> None:
    """To the same brokers in another order, where there are several."""
    name = topic("reassign")
    replicas = list(range(REPLICAS, 0, -1))
    plan = file(json.dumps({"version": 1, "partitions": [{"topic": name, "partition": 0, "replicas": replicas}]}))
    command = ["reassign.ReassignPartitionsCommand", "--reassignment-json-file", plan]
    shows(tool(*command, "--execute"), "Successfully started partition reassignment")
    eventually(lambda: shows(tool(*command, "--verify"), f"Reassignment of partition {name}-0 is completed"))
    order = ",".join(map(str, replicas))
    eventually(lambda: shows(tool("TopicCommand", "--describe", "--topic", name), f"Replicas: {order} "))


def cluster() -> None:
    shows(subcommand("ClusterTool", "cluster-id"), r"Cluster ID: \S+")
    shows(subcommand("ClusterTool", "list-endpoints"), r"(?m)^1 127\.0\.0\.1 \d+ ")
    shows(tool("BrokerApiVersionsCommand"), r"id: 1 ", r"Produce\(0\): 0 to \d+")
    shows(tool("GroupsCommand", "--list"), r"GROUP TYPE PROTOCOL")


run("Kafka's tools", version("kafka-tools"), {
    "TopicCommand": topics,
    "ConfigCommand": configs,
    "ConsumerGroupCommand": consumer_groups,
    "GetOffsetShell": get_offsets,
    "DeleteRecordsCommand": delete_records,
    "LogDirsCommand": log_dirs,
    "LeaderElectionCommand": leader_election,
    "MetadataQuorumCommand": metadata_quorum,
    "FeatureCommand": features,
    "TransactionsCommand": transactions,
    "ProducerPerformance, ConsumerPerformance": performance,
    "EndToEndLatency": latency,
    "VerifiableProducer, VerifiableConsumer": lambda: verifiable("CLASSIC"),
    "VerifiableConsumer, consumer protocol": lambda: verifiable("CONSUMER"),
    "ConsoleProducer, ConsoleConsumer": console,
    "ReassignPartitionsCommand": reassignment,
    "ClusterTool, BrokerApiVersionsCommand, GroupsCommand": cluster,
})
