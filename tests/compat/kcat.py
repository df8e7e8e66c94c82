"""kcat, the command-line client on librdkafka, as Debian ships it. It has no calls for administration."""
import re
import subprocess
import sys
import threading
import time

from driver import CODECS, Absent, expect, kill, run, values

BOOTSTRAP, PREFIX = sys.argv[1], sys.argv[2]
PATIENCE = 90


def kcat(*arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["kcat", "-b", BOOTSTRAP, *arguments], input=stdin, capture_output=True, timeout=PATIENCE)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode(errors="replace").strip()[-300:])
    return done.stdout


def send(topic: str, lines: list[bytes], *more: str) -> None:
    kcat("-P", "-t", topic, "-p", "0", "-X", "acks=all", *more, stdin=b"".join(line + b"\n" for line in lines))


def read(topic: str, *more: str) -> bytes:
    return kcat("-C", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q", *more)


def produce(codec: str) -> None:
    topic, sent = f"{PREFIX}-produce-{codec}", values(codec)
    send(topic, sent, "-z", codec)
    expect(read(topic).splitlines(), sent, "lines")


def idempotent() -> None:
    topic, sent = f"{PREFIX}-idempotent", values("once")
    send(topic, sent, "-X", "enable.idempotence=true")
    expect(read(topic).splitlines(), sent, "lines")


def headers() -> None:
    topic = f"{PREFIX}-headers"
    send(topic, [b"k:v"], "-K", ":", "-H", "a=1", "-H", "b=2")
    expect(read(topic, "-f", "%k|%s|%h"), b"k|v|a=1,b=2", "the record")


def offsets() -> None:
    topic = f"{PREFIX}-offsets"
    send(topic, [b"one", b"two"])
    expect(kcat("-Q", "-t", f"{topic}:0:1").strip(), f"{topic} [0] offset 0".encode(), "after the epoch")
    expect(kcat("-Q", "-t", f"{topic}:0:4102444800000").strip(), f"{topic} [0] offset -1".encode(), "after 2100")


def group_commit() -> None:
    topic, group, sent = f"{PREFIX}-commit", f"{PREFIX}-group", values("commit")
    send(topic, sent)
    first = kcat("-X", "auto.offset.reset=earliest", "-q", "-c", "100", "-G", group, topic)
    expect(len(first.splitlines()), 100, "lines")
    rest = kcat("-X", "auto.offset.reset=earliest", "-q", "-e", "-G", group, topic)
    expect(rest.splitlines(), sent[100:], "lines after the commit")


def group_pattern() -> None:
    earlier, later, found = f"{PREFIX}-pattern-earlier", f"{PREFIX}-pattern-later", []
    send(earlier, [b"earlier"])
    reader = subprocess.Popen(
        ["kcat", "-b", BOOTSTRAP, "-q", "-u", "-f", "%t %s\\n", "-X", "auto.offset.reset=earliest",
         "-X", "topic.metadata.refresh.interval.ms=1000", "-G", f"{PREFIX}-pattern-group", f"^{PREFIX}-pattern-.*"],
        stdout=subprocess.PIPE,
    )
    threading.Thread(target=lambda: found.extend(reader.stdout), daemon=True).start()
    def wait_for(line: bytes) -> None:
        deadline = time.monotonic() + PATIENCE
        while line not in found and time.monotonic() < deadline:
            time.sleep(0.05)
        expect(line in found, True, f"{line} is read")
    try:
        wait_for(f"{earlier} earlier\n".encode())
        send(later, [b"later"])
        wait_for(f"{later} later\n".encode())
    finally:
        reader.kill()
        reader.wait()


def no_consumer_protocol() -> None:
    raise Absent("its librdkafka has the classic protocol only")


def node_killed() -> None:
    """The producer takes its lines from us, one by one; the member of the group is another process."""
    if int(sys.argv[3]) == 1:
        raise Absent("kcat ends by itself when its only node is away")
    topic, found = f"{PREFIX}-killed", []
    send(topic, [b"killed 0"])
    writer = subprocess.Popen(
        ["kcat", "-b", BOOTSTRAP, "-P", "-t", topic, "-p", "0", "-X", "acks=all", "-X", "enable.idempotence=true", "-X", "linger.ms=5"],
        stdin=subprocess.PIPE,
    )
    reader = subprocess.Popen(
        ["kcat", "-b", BOOTSTRAP, "-q", "-u", "-f", "%o %s\\n", "-X", "auto.offset.reset=earliest", "-G", f"{PREFIX}-killed-group", topic],
        stdout=subprocess.PIPE,
    )
    threading.Thread(target=lambda: found.extend(reader.stdout), daemon=True).start()
    def write(number: int) -> None:
        writer.stdin.write(b"killed %d\n" % number)
        writer.stdin.flush()
    try:
        number, last, back = 1, None, None
        while last is None or number < last:
            write(number)
            time.sleep(0.005)
            if number == 200:
                back = kill(re.search(rb"leader (\d+)", kcat("-L", "-t", topic)).group(1).decode())
            if last is None and back and back.is_set():
                last = number + 200
            number += 1
        writer.stdin.close()
        expect(writer.wait(PATIENCE), 0, "the producer's end")
        deadline = time.monotonic() + PATIENCE
        while len(set(found)) < number and time.monotonic() < deadline:
            time.sleep(0.05)
        expect(sorted(set(found)), sorted(b"%d killed %d\n" % (at, at) for at in range(number)), "records with their offsets")
    finally:
        writer.kill(), reader.kill()
        writer.wait(), reader.wait()


def none() -> None:
    raise Absent("kcat has no such command")


version = subprocess.run(["kcat", "-V"], capture_output=True, text=True).stdout
run("kcat", ", librdkafka ".join(re.findall(r"\d+\.\d+\.\d+", version)[:2]), {
    **{f"produce {codec}": lambda codec=codec: produce(codec) for codec in CODECS},
    "idempotent produce": idempotent,
    "headers": headers,
    "offsets by time": offsets,
    "group: commit, resume": group_commit,
    "group: rebalance": none,
    "group: consumer protocol": no_consumer_protocol,
    "group: topics by pattern": group_pattern,
    "admin: topics": none,
    "admin: configs": none,
    "admin: groups": none,
    "transactions: commit": none,
    "transactions: abort": none,
    "transactions: offsets": none,
    "transactions: fencing": none,
    "admin: transactions": none,
    "node killed": node_killed,
    "group: node killed (consumer protocol)": no_consumer_protocol,
})
