#!/usr/bin/env python3
"""Members of a consumer group through confluent-kafka, for the faults ring: ten in each process, which may be killed.

    groups.py classic  NAME BOOTSTRAP PARTITIONS HISTORY     by JoinGroup and SyncGroup, cooperatively
    groups.py consumer NAME BOOTSTRAP PARTITIONS HISTORY     by ConsumerGroupHeartbeat (KIP-848)
    groups.py final    NAME BOOTSTRAP PARTITIONS HISTORY     what there was to read, and what the group committed

All read `numbered`. Histories are what `tests/checker` reads (its module `ownership` says what each event means), times
in microseconds of the monotonic clock. All run until a line comes on stdin, or stdin is closed. `final` says `caught up`
once everything is committed, and goes on when a line comes.
"""
import faulthandler
import json
import select
import signal
import sys
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

TOPIC = "numbered"
GROUP = "members"
MEMBERS = 10
COMMIT_EVERY_S = 1
PATIENCE_S = 180
# Where librdkafka's group metadata has the generation, or the member's epoch.
GENERATION = slice(7, 11)


def now() -> int:
    return time.monotonic_ns() // 1000


def is_told_to_end() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def error(what) -> None:
    print(f"{time.time():.3f} error", str(what).replace("\n", " "), flush=True)


class History:
    def __init__(self, path: str) -> None:
        # Each line reaches the file at once: a killed process leaves all that it knew.
        self.file = open(path, "a", buffering=1)

    def write(self, event: str, client: str, **rest) -> None:
        self.file.write(json.dumps({"event": event, "client": client, **rest}) + "\n")


class Member:
    def __init__(self, protocol: str, name: str, bootstrap: str, history: History) -> None:
        self.name, self.history = name, history
        self.places: dict[int, int] = {}
        self.asked_at: int | None = None
        self.committed_at = time.monotonic()
        settings = {
            "bootstrap.servers": bootstrap,
            "client.id": name,
            "group.id": GROUP,
            "group.protocol": protocol,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "on_commit": self.on_commit,
            "error_cb": error,
            "socket.timeout.ms": 10_000,
            "reconnect.backoff.max.ms": 1_000,
            "log_level": 0,
        }
        if protocol == "classic":
            settings |= {"partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": 6_000,
                         "heartbeat.interval.ms": 1_000}
        self.consumer = Consumer(settings)
        self.consumer.subscribe([TOPIC], on_assign=self.told("assigned"), on_revoke=self.revoked,
                                on_lost=self.told("revoked"))

    def generation(self) -> int:
        return int.from_bytes(bytes(self.consumer.consumer_group_metadata())[GENERATION], "little", signed=True)

    def told(self, event: str):
        def note(_consumer, places) -> None:
            partitions = [place.partition for place in places]
            if event == "revoked":
                for partition in partitions:
                    self.places.pop(partition, None)
            self.history.write(event, self.name, generation=self.generation(), partitions=partitions, at=now())
        return note

    def revoked(self, consumer, places) -> None:
        # What was read is committed before somebody else goes on there.
        offsets = [TopicPartition(TOPIC, place.partition, self.places[place.partition])
                   for place in places if place.partition in self.places]
        if offsets:
            asked_at = now()
            try:
                self.committed(asked_at, consumer.commit(offsets=offsets, asynchronous=False))
            except KafkaException as why:
                error(why.args[0])
        self.told("revoked")(consumer, places)

    def on_commit(self, why, places) -> None:
        asked_at, self.asked_at = self.asked_at, None
        if why is None and asked_at is not None:
            self.committed(asked_at, places)
        elif why is not None:
            error(why)

    def committed(self, asked_at: int, places) -> None:
        at = now()
        for place in places:
            if place.error is None:
                self.history.write("committed", self.name, partition=place.partition, offset=place.offset,
                                   asked_at=asked_at, at=at)

    def turn(self) -> None:
        spans: dict[int, list[int]] = {}
        for message in self.consumer.consume(500, timeout=0.01):
            if message.error():
                error(message.error())
                continue
            partition, offset = message.partition(), message.offset()
            span = spans.setdefault(partition, [offset, offset])
            span[1] = offset + 1
        generation = self.generation() if spans else 0
        for partition, (begin, end) in spans.items():
            self.places[partition] = end
            self.history.write("read", self.name, generation=generation, partition=partition, begin=begin, end=end)
        if self.places and self.asked_at is None and time.monotonic() - self.committed_at > COMMIT_EVERY_S:
            self.asked_at, self.committed_at = now(), time.monotonic()
            offsets = [TopicPartition(TOPIC, partition, end) for partition, end in self.places.items()]
            try:
                self.consumer.commit(offsets=offsets, asynchronous=True)
            except KafkaException as why:
                self.asked_at = None
                error(why.args[0])


def work(protocol: str, name: str, bootstrap: str, history: History) -> None:
    history.write("begun", name, at=now())
    members = [Member(protocol, f"{name}/{number}", bootstrap, history) for number in range(MEMBERS)]
    while not is_told_to_end():
        for member in members:
            member.turn()
    for member in members:
        try:
            member.consumer.close()
        except SystemError as why:
            # The binding trips over itself where the last commit, of a member that is none any more, is refused.
            error(why)


def final(name: str, bootstrap: str, partitions: int, history: History) -> None:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": GROUP, "error_cb": error, "log_level": 0})
    places = [TopicPartition(TOPIC, partition) for partition in range(partitions)]

    def persist(call):
        while True:
            try:
                return call()
            except KafkaException as why:
                error(why.args[0])

    ends = {place.partition: persist(lambda place=place: consumer.get_watermark_offsets(place, timeout=10)[1])
            for place in places}

    def committed() -> dict[int, int]:
        found = persist(lambda: consumer.committed(places, timeout=10))
        return {place.partition: max(place.offset, 0) for place in found}

    def behind() -> int:
        offsets = committed()
        return sum(max(end - offsets[partition], 0) for partition, end in ends.items())

    until, least = time.monotonic() + PATIENCE_S, None
    while (left := behind()) > 0 and time.monotonic() < until:
        if least is None or left < least:
            until, least = time.monotonic() + PATIENCE_S, left
        time.sleep(0.5)
    print(f"caught up {sum(ends.values()) - left} {sum(ends.values())}", flush=True)
    sys.stdin.readline()
    for partition, offset in committed().items():
        history.write("last", name, partition=partition, end=ends[partition], committed=offset)
    consumer.close()


def main() -> None:
    # One that does not end is asked where it is.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    task, name, bootstrap, partitions, path = sys.argv[1:]
    history = History(path)
    if task == "final":
        final(name, bootstrap, int(partitions), history)
    else:
        work(task, name, bootstrap, history)


if __name__ == "__main__":
    main()
