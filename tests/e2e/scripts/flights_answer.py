#!/usr/bin/env python3
"""Reads the demo's results from the core with confluent-kafka and compares them with what DuckDB makes of the flights.

    flights_answer.py BOOTSTRAP FLIGHTS.csv AIRPORTS.csv

Compared are all of them, none rounded: how many flights left each origin in each hour, the delays of the late ones (their
count, sum, least, most and mean), and every late flight with the airport and city of its origin.
"""
import json
import sys
from collections import Counter

import duckdb
from confluent_kafka import Consumer, KafkaError, TopicPartition

HOURLY, DELAYS, ENRICHED = "edge.flights-hourly", "delays-hourly", "edge.flights-enriched"


def read(bootstrap: str, topic: str):
    """The values of a topic, partition by partition, in order."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": "answer",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "check.crcs": True,
        "enable.partition.eof": True,
    })
    for partition in consumer.list_topics(topic, timeout=30).topics[topic].partitions:
        first, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
        if first != 0:
            sys.exit(f"{topic} {partition} begins at {first}")
        consumer.assign([TopicPartition(topic, partition, 0)])
        # Offsets have gaps, and the last of them may be a transaction's marker: the client says when it is at the end.
        while (message := consumer.poll(30)) is None or not is_end(message):
            if message is None:
                sys.exit(f"{topic} {partition}: nothing came for 30 s, and it ends at {end}")
            if message.error():
                sys.exit(f"{topic} {partition}: {message.error()}")
            yield json.loads(message.value())
    consumer.close()


def is_end(message) -> bool:
    return message.error() is not None and message.error().code() == KafkaError._PARTITION_EOF


def latest(bootstrap: str, topic: str, fields: list[str]) -> dict:
    """The last result of each origin and hour: each replaces the one before."""
    results = {}
    for value in read(bootstrap, topic):
        results[value["origin"], value["window_start"].rstrip("Z")] = tuple(value[field] for field in fields)
    return results


def expected(query: str) -> dict:
    return {(row[0], row[1]): tuple(row[2:]) for row in duckdb.sql(query).fetchall()}


def same(what: str, found: dict, wanted: dict) -> None:
    differing = [key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)]
    if differing:
        key = min(differing)
        sys.exit(f"{what}: {len(differing)} differ, the first is {key}: {found.get(key)}, expected {wanted.get(key)}")


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    bootstrap, flights, airports = sys.argv[1:]
    duckdb.sql(f"create table flights as from read_csv('{flights}', types = {{'date': 'timestamp', 'delay': 'bigint'}})")
    duckdb.sql(f"create table airports as from read_csv('{airports}', types = {{'iata': 'varchar'}})")
    hour = "strftime(date_trunc('hour', date), '%Y-%m-%dT%H:%M:%S')"
    late = "from flights where delay > 15 group by all"

    hourly = expected(f"select origin, {hour} as hour, count(*) from flights group by all")
    same("flights of an hour", latest(bootstrap, HOURLY, ["flights"]), hourly)
    delays = expected(f"select origin, {hour} as hour, count(*), sum(delay)::bigint, min(delay), max(delay), avg(delay) {late}")
    fields = ["late", "delay_sum", "delay_min", "delay_max", "delay_mean"]
    same("delays of an hour", latest(bootstrap, DELAYS, fields), delays)

    columns = ["date", "delay", "distance", "origin", "destination", "airport", "city"]
    found = Counter(tuple(value[column] for column in columns) for value in read(bootstrap, ENRICHED))
    wanted = Counter(duckdb.sql(
        "select strftime(date, '%Y-%m-%dT%H:%M:%S'), delay, distance, origin, destination, name, city "
        "from flights join airports on origin = iata where delay > 15"
    ).fetchall())
    same("late flights", found, wanted)
    print(f"agree: {len(hourly)} hours, {len(delays)} with delays, {sum(wanted.values())} late flights")


if __name__ == "__main__":
    main()
