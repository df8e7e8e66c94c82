"""Apache Spark by its own source and sink: a batch of a whole topic, and structured streaming of windows. Their sources are
`java/spark`."""
import os
import sys
import tempfile

from apps import Cluster, Program, Reader, version
from driver import expect, run
from windows import Numbers

BOOTSTRAP, PREFIX = sys.argv[1], sys.argv[2]
cluster = Cluster(BOOTSTRAP, int(sys.argv[3]))
PARTITIONS = 3
# What `withWatermark` in the source says.
LATE_MS = 10_000
folder = tempfile.TemporaryDirectory()
# Spark looks into Java's own classes.
OPENED = [
    f"--add-opens=java.base/{name}=ALL-UNNAMED"
    for name in ["java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.util",
                 "java.util.concurrent", "java.util.concurrent.atomic", "sun.nio.ch", "sun.nio.cs", "sun.security.action", "sun.util.calendar"]
]
SETTINGS = {
    "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": "2", "spark.sql.session.timeZone": "UTC", "spark.local.dir": folder.name,
    "spark.sql.warehouse.dir": os.path.join(folder.name, "warehouse"),
}


def start(name: str, *arguments: str) -> Program:
    return Program(*OPENED, *[f"-D{key}={value}" for key, value in SETTINGS.items()], name, *arguments)


def batch() -> None:
    numbers = Numbers(cluster, f"{PREFIX}-batch", 4)
    numbers.send(2000)
    path = os.path.join(folder.name, "batch")
    with start("Batch", BOOTSTRAP, numbers.topic, path) as program:
        program.ends()
    numbers.check_read(path)


class Query:
    """The windows of one topic, in another; each start goes on from the checkpoint."""

    def __init__(self, name: str) -> None:
        self.folder = os.path.join(folder.name, name)
        self.numbers = Numbers(cluster, f"{PREFIX}-{name}-numbers", PARTITIONS)
        self.sums = cluster.topic(f"{PREFIX}-{name}-sums", PARTITIONS)
        self.reader = Reader(cluster, self.sums, PARTITIONS)

    def start(self) -> Program:
        return start("Stream", BOOTSTRAP, self.numbers.topic, self.sums, self.folder)

    def check(self, program: Program) -> list:
        """Each window is told with all its numbers; whoever tells it again says the same."""
        wanted = self.numbers.wanted(max(self.numbers.last_ms.values()) - LATE_MS)
        program.until(lambda: len(set(self.reader.records())) >= len(wanted), "windows")
        expect(sorted(set(self.reader.found)), sorted(wanted.items()), "windows")
        return self.reader.found


def windows() -> None:
    with query.start() as program:
        for _ in range(2):
            query.numbers.send(1000)
            found = query.check(program)
            expect(len(found), len(set(found)), "windows told")
        program.terminate()


def stopped() -> None:
    query.numbers.send(1000)
    with query.start() as program:
        query.check(program)


def killed() -> None:
    """Its sink is at least once: what it wrote after the last checkpoint is written again."""
    query = Query("killed")
    for _ in range(2):
        query.numbers.send(3000)
        before = len(query.reader.records())
        with query.start() as program:
            program.until(lambda: len(query.reader.records()) > before, "windows before it is killed")
    with query.start() as program:
        query.check(program)


query = Query("windows")
run("Apache Spark", version("spark-sql-kafka-0-10_2.13"), {
    "topic read to its end": batch,
    "structured streaming: windows": windows,
    "structured streaming: started again": stopped,
    "structured streaming: killed and started again": killed,
})
