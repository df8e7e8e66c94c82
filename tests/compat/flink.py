"""Apache Flink by its own connector: a job that reads a topic to its end, and one of windows, exactly once. Their sources are
`java/flink`."""
import glob
import os
import sys
import tempfile

from apps import Cluster, Program, Reader, version
from driver import expect, run
from windows import Numbers, committed

BOOTSTRAP, PREFIX = sys.argv[1], sys.argv[2]
cluster = Cluster(BOOTSTRAP, int(sys.argv[3]))
PARTITIONS = 3
folder = tempfile.TemporaryDirectory()
# Flink looks into Java's own classes.
OPENED = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ["lang", "net", "io", "nio", "util", "util.concurrent", "time"]]


class Job:
    """The windows of one topic, in another; each start goes on from the last checkpoint."""

    def __init__(self, name: str, naming: str) -> None:
        self.name, self.naming, self.folder = f"{PREFIX}-{name}", naming, os.path.join(folder.name, name)
        self.numbers = Numbers(cluster, f"{self.name}-numbers", PARTITIONS)
        self.sums = cluster.topic(f"{self.name}-sums", PARTITIONS)
        self.reader = Reader(cluster, self.sums, PARTITIONS)

    def start(self) -> Program:
        written = sorted(glob.glob(f"{self.folder}/*/chk-*/_metadata"), key=os.path.getmtime)
        last = [os.path.dirname(each) for each in written[-1:]]
        arguments = [BOOTSTRAP, self.name, self.numbers.topic, self.sums, self.folder, self.naming, *last]
        return Program(*OPENED, "Windows", *arguments)

    def wanted(self) -> dict[str, str]:
        return self.numbers.wanted(min(self.numbers.last_ms.values()))

    def check(self, program: Program) -> None:
        """Each window is told once, with all its numbers."""
        wanted = self.wanted()
        program.until(lambda: len(self.reader.records()) >= len(wanted), "windows")
        found = self.reader.records()
        expect(len(found), len(wanted), "windows told")
        expect(dict(found), wanted, "windows")

    def wait_committed(self, program: Program) -> None:
        program.until(lambda: committed(cluster, self.name, self.numbers) == self.numbers.ends(), "offsets of the group")


def bounded() -> None:
    numbers = Numbers(cluster, f"{PREFIX}-bounded", 4)
    numbers.send(2000)
    path = os.path.join(folder.name, "bounded")
    with Program(*OPENED, "Bounded", BOOTSTRAP, numbers.topic, path) as program:
        program.ends()
    numbers.check_read(path)


def windows() -> None:
    job.numbers.send(1000)
    with job.start() as program:
        job.check(program)
        job.numbers.send(1000)
        job.check(program)


def offsets() -> None:
    """Flink does not go by them: they are for those who look at the group."""
    with job.start() as program:
        job.wait_committed(program)
        job.numbers.send(100)
        job.wait_committed(program)


def discovery() -> None:
    job.numbers.send(100)
    with job.start() as program:
        job.check(program)
        job.numbers.add_partition()
        # The windows stay open until the other partitions have come this far.
        job.numbers.send(200, [PARTITIONS])
        job.wait_committed(program)
        job.numbers.send(400)
        job.check(program)


def killed(naming: str) -> None:
    """Its transactions are open when it is killed; the next one ends them: those of the checkpoint are committed."""
    job = Job(f"killed-{naming.lower()}", naming)
    everything = Reader(cluster, job.sums, PARTITIONS, "read_uncommitted")
    def is_open() -> bool:
        job.numbers.send(100)
        job.reader.records()
        everything.records()
        return 0 < len(job.reader.found) < len(everything.found)
    for _ in range(2):
        with job.start() as program:
            before = len(job.reader.records())
            program.until(lambda: job.numbers.send(100) or len(job.reader.records()) > before, "windows before it is killed")
            program.until(is_open, "windows that are not committed")
    # How far the time had come is not in a checkpoint: new records tell it.
    job.numbers.send(300)
    with job.start() as program:
        job.check(program)


job = Job("windows", "INCREMENTING")
run("Apache Flink", f"{version('flink-runtime')}, connector {version('flink-connector-kafka')}", {
    "topic read to its end": bounded,
    "windows, exactly once": windows,
    "offsets of the group": offsets,
    "partitions added while it runs": discovery,
    "killed and started again": lambda: killed("INCREMENTING"),
    "killed, transactions' ids from a pool": lambda: killed("POOLING"),
})
