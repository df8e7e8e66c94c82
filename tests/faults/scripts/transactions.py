#!/usr/bin/env python3
"""Clients in transactions through confluent-kafka, for the faults ring: each may be killed at any line.

    transactions.py bank  NAME BOOTSTRAP PARTITIONS HISTORY     transfers: two legs of one transaction in `ledger`
    transactions.py copy  NAME BOOTSTRAP PARTITIONS HISTORY     `numbered` to `copies`, offsets in the transaction
    transactions.py watch NAME BOOTSTRAP PARTITIONS HISTORY     reads `ledger` along, read_committed
    transactions.py final NAME BOOTSTRAP PARTITIONS HISTORY     reads everything when all is over

NAME is the transactional id of the first two. Histories are what `tests/checker` reads (its module `effects` says
what each event means). All run until a line comes on stdin, or stdin is closed; one that is fenced ends by itself with
status 3, and so does one whose library does not return from a call long after the limit it was given. `final` says
`caught up` once every record has a copy, and goes on when a line comes.
"""
import faulthandler
import json
import os
import random
import select
import signal
import sys
import threading
import time

from confluent_kafka import (OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition)

SOURCE, COPIES, LEDGER = "numbered", "copies", "ledger"
GROUP = "copiers"
FENCED = 3
# Long enough for whatever a fault takes; the run is over before that only if something hangs.
PATIENCE_S = 120
# What a call of the library is given, and when its process is given up: librdkafka may wait on for the answer of a node
# that was killed. Its transaction is open then, as if the client had been killed: its next life must find it so.
LIMIT_S = 30
STUCK_S = 3 * LIMIT_S
ABORTED_ON_PURPOSE = 0.1
BATCH = 200


class Fenced(Exception):
    """Somebody else has this transactional id now, or the producer cannot go on."""


class Client:
    def __init__(self, name: str, bootstrap: str, partitions: int, history: str) -> None:
        self.name, self.bootstrap, self.partitions = name, bootstrap, partitions
        # Each line reaches the file at once: a killed client leaves all that it was told.
        self.file = open(history, "a", buffering=1)

    def write(self, event: str, **rest) -> None:
        self.file.write(json.dumps({"event": event, "client": self.name, **rest}) + "\n")

    @staticmethod
    def error(error) -> None:
        print(f"{time.time():.3f} error", str(error).replace("\n", " "), flush=True)

    @staticmethod
    def is_told_to_end(wait: float = 0) -> bool:
        return bool(select.select([sys.stdin], [], [], wait)[0])

    def settings(self, **more) -> dict:
        return {
            "bootstrap.servers": self.bootstrap,
            "client.id": self.name,
            "socket.timeout.ms": 10_000,
            "reconnect.backoff.max.ms": 1_000,
            "error_cb": self.error,
            "log_level": 0,
            **more,
        }

    def consumer(self, group: str, isolation: str, **more) -> Consumer:
        return Consumer(self.settings(**{
            "group.id": group,
            "isolation.level": isolation,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 10_000,
            "check.crcs": True,
            **more,
        }))

    def all_of(self, topic: str) -> list:
        return [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(self.partitions)]


class Transactions:
    """A transactional producer: what can be tried again is, what cannot ends the process."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.producer = Producer(client.settings(**{
            "transactional.id": client.name,
            "transaction.timeout.ms": 15_000,
            "linger.ms": 2,
        }))
        self.persist(lambda: self.producer.init_transactions(LIMIT_S))

    def persist(self, call) -> None:
        """Until it is done. KafkaException: the transaction must be aborted."""
        while True:
            stuck = threading.Timer(STUCK_S, self.give_up)
            stuck.start()
            try:
                return call()
            except KafkaException as why:
                error = why.args[0]
                self.client.error(error)
                if error.fatal():
                    raise Fenced(str(error)) from why
                if error.txn_requires_abort():
                    raise
                if not error.retriable():
                    raise Fenced(str(error)) from why
            finally:
                stuck.cancel()

    def give_up(self) -> None:
        self.client.error(f"ends: a call that was given {LIMIT_S} s has not returned after {STUCK_S}")
        faulthandler.dump_traceback()
        os._exit(FENCED)

    def run(self, fill) -> str:
        """One transaction; what became of it."""
        try:
            self.producer.begin_transaction()
            fill(self.producer, self.persist)
            if random.random() < ABORTED_ON_PURPOSE:
                self.persist(lambda: self.producer.abort_transaction(LIMIT_S))
                return "aborted"
            self.persist(lambda: self.producer.commit_transaction(LIMIT_S))
            return "committed"
        except KafkaException as why:
            error = why.args[0]
            if error.fatal() or not error.txn_requires_abort():
                raise Fenced(str(error)) from why
            self.persist(lambda: self.producer.abort_transaction(LIMIT_S))
            return "aborted"


def bank(client: Client) -> None:
    transactions = Transactions(client)
    life = f"{os.getpid()}-{time.monotonic_ns()}"
    count = 0
    while not client.is_told_to_end(0.02):
        count += 1
        transfer = f"{client.name}/{life}/{count}"
        amount = random.randrange(1, 1_000)
        client.write("begun", transfer=transfer)

        def fill(producer, _persist) -> None:
            for part in (-amount, amount):
                producer.produce(LEDGER, f"{transfer} {part}".encode(),
                                 partition=random.randrange(client.partitions))

        try:
            outcome = transactions.run(fill)
        except (Fenced, KafkaException):
            client.write("ended", transfer=transfer, outcome="unknown")
            raise
        client.write("ended", transfer=transfer, outcome=outcome)


def copy(client: Client) -> None:
    transactions = Transactions(client)
    consumer = client.consumer(GROUP, "read_committed", **{"max.poll.interval.ms": 60_000})
    consumer.subscribe([SOURCE])
    while not client.is_told_to_end():
        messages = []
        for message in consumer.consume(BATCH, timeout=0.2):
            if message.error():
                client.error(message.error())
            else:
                messages.append(message)
        if not messages:
            continue
        ends = {message.partition(): message.offset() + 1 for message in messages}

        def fill(producer, persist) -> None:
            for message in messages:
                producer.produce(COPIES, str(message.offset()).encode(), partition=message.partition())
            offsets = [TopicPartition(SOURCE, partition, end) for partition, end in ends.items()]
            metadata = consumer.consumer_group_metadata()
            persist(lambda: producer.send_offsets_to_transaction(offsets, metadata, LIMIT_S))

        if transactions.run(fill) != "committed":
            rewind(client, consumer, ends)
    consumer.close()


def rewind(client: Client, consumer: Consumer, partitions) -> None:
    """Back to what was committed, as far as the partitions are still this consumer's."""
    while True:
        try:
            mine = [place for place in consumer.assignment() if place.partition in partitions]
            for place in consumer.committed(mine, timeout=10) if mine else []:
                if place.offset < 0:
                    place.offset = OFFSET_BEGINNING
                consumer.seek(place)
            return
        except KafkaException as why:
            client.error(why.args[0])
            if why.args[0].code() in (KafkaError._STATE, KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID):
                # A rebalance took them: whoever is given them begins at what was committed.
                return


def watch(client: Client) -> None:
    consumer = client.consumer(client.name, "read_committed")
    consumer.assign(client.all_of(LEDGER))
    while not client.is_told_to_end():
        for message in consumer.consume(1_000, timeout=0.2):
            if message.error():
                client.error(message.error())
            else:
                leg(client, message)
    consumer.close()


def leg(client: Client, message) -> None:
    transfer, amount = message.value().decode().rsplit(" ", 1)
    client.write("leg", partition=message.partition(), offset=message.offset(), transfer=transfer, amount=int(amount))


def each(client: Client, topic: str, take, is_done=lambda: False) -> None:
    """Hands over what is committed of a topic, up to its end."""
    consumer = client.consumer(client.name, "read_committed", **{"enable.partition.eof": True})
    consumer.assign(client.all_of(topic))
    at_end = set()
    last = time.monotonic()
    while len(at_end) < client.partitions and not is_done():
        if time.monotonic() - last > PATIENCE_S:
            raise TimeoutError(f"{topic} could not be read to its end")
        for message in consumer.consume(1_000, timeout=0.5):
            error = message.error()
            if error is None:
                at_end.discard(message.partition())
                last = time.monotonic()
                take(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                at_end.add(message.partition())
            else:
                client.error(error)
    consumer.close()


def final(client: Client) -> None:
    sources = [0]

    def source(message) -> None:
        sources[0] += 1
        client.write("source", partition=message.partition(), offset=message.offset())

    each(client, SOURCE, source)
    until = time.monotonic() + PATIENCE_S
    copied = -1
    while copied < sources[0] and time.monotonic() < until:
        seen = [0]

        def count(_message) -> None:
            seen[0] += 1

        each(client, COPIES, count)
        if seen[0] > copied:
            until = time.monotonic() + PATIENCE_S
        copied = seen[0]
    print(f"caught up {copied} {sources[0]}", flush=True)
    sys.stdin.readline()
    rest(client, [SOURCE, COPIES, LEDGER])
    each(client, LEDGER, lambda message: leg(client, message))
    each(client, COPIES, lambda message: client.write(
        "copy", partition=message.partition(), offset=message.offset(), of=int(message.value())))


def rest(client: Client, topics: list) -> None:
    """Waits until no transaction is open any more in these topics, and writes down where each partition ends."""
    committed = client.consumer(client.name, "read_committed")
    uncommitted = client.consumer(client.name, "read_uncommitted")
    places = [place for topic in topics for place in client.all_of(topic)]

    def ends(consumer: Consumer) -> list:
        while True:
            try:
                return [consumer.get_watermark_offsets(place, timeout=10)[1] for place in places]
            except KafkaException as why:
                client.error(why.args[0])

    until = time.monotonic() + PATIENCE_S
    while True:
        # In this order: whatever is written meanwhile makes the second larger.
        end, stable = ends(uncommitted), ends(committed)
        if all(one >= other for one, other in zip(stable, end)) or time.monotonic() > until:
            break
    for place, stable, end in zip(places, stable, end):
        client.write("rest", topic=place.topic, partition=place.partition, stable=stable, end=end)


def main() -> None:
    # One that does not end is asked where it is.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    task, name, bootstrap, partitions, history = sys.argv[1:]
    client = Client(name, bootstrap, int(partitions), history)
    try:
        {"bank": bank, "copy": copy, "watch": watch, "final": final}[task](client)
    except (Fenced, KafkaException) as why:
        client.error(f"ends: {why}")
        # Not by way of destructors: they would wait for what cannot be done any more.
        os._exit(FENCED)


if __name__ == "__main__":
    main()
