#!/usr/bin/env python3
"""The flights job's two ends through confluent-kafka, for the faults ring: what goes in, and whether what came out is right.

    flights.py airports BOOTSTRAP                                    fills the table to enrich with
    flights.py feed     BOOTSTRAP PARTITIONS RATE FLIGHTS.csv FED.csv    flights, so many in a second, until a line comes on stdin
    flights.py finish   BOOTSTRAP PARTITIONS                         what joins need to know that nothing more comes
    flights.py compare  BOOTSTRAP PARTITIONS FED.csv HISTORY DELIVERY    every table, and DuckDB's answer to what was fed

`feed` takes all flights of the file again and again, each time later by as many days as they span, keyed by origin, by the time
of departure. Told to end before it has been through all of them once, it sends the rest faster. Its last word is JSON: how many
there are in the file, how many it sent until it was told to end, and how many in all, when all is acknowledged. A last record
for each partition, years later, closes the windows of all others. `finish` sends another, a late one: it comes to the join when
all hours have, and ends the waiting of those that met nothing. What was sent stands in FED.csv. `compare` writes what
`tests/checker` reads (its module `tables`).
"""
import csv
import json
import select
import sys
import time
from calendar import timegm
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
from confluent_kafka import Producer

from transactions import Client, each, rest

DATA = Path(__file__).resolve().parents[2] / "data"
SOURCE, AIRPORTS = "flights", "airports"
LATE, ENRICHED, HOURLY, DELAYS = "flights-late", "flights-enriched", "flights-hourly", "delays-hourly"
JOINED = "flights-joined"
TRANSFORMS = ["late", "enriched", "hourly", "delays", "joined"]
# How far apart in time a flight and the end of an hour are joined, as the ring deploys it.
WITHIN_S = 45 * 60
# The key of what closes windows, and ends waiting; DuckDB is not told of it.
END = "end"
CLOSED, FINISHED = datetime(2021, 1, 1), datetime(2022, 1, 1)
TICK = 0.01
# How much faster what is left of the file is sent when there are no faults any more. No pipeline may fall behind another by as
# much as the join's grace.
HASTE = 4
# Not given up while a run lasts; the most that librdkafka takes is 2^31 - 1 ms.
DELIVERY_MS = 3_600_000


def error(what) -> None:
    print(f"{time.time():.3f} error", str(what).replace("\n", " "), file=sys.stderr, flush=True)


class Feeder:
    """A producer that never gives up, and counts what was not taken all the same."""

    def __init__(self, bootstrap: str) -> None:
        self.failed = 0
        self.producer = Producer({
            "bootstrap.servers": bootstrap,
            "client.id": "feed",
            "acks": "all",
            "enable.idempotence": True,
            # With more, a batch that is refused after an earlier one makes librdkafka send again under new numbers what may
            # be stored already (confluentinc/librdkafka#4953).
            "max.in.flight.requests.per.connection": 1,
            # Kafka's own, as pipelines route by key: what has one key stays in the partition of that number all the way.
            "partitioner": "murmur2",
            "linger.ms": 5,
            "message.timeout.ms": DELIVERY_MS,
            "socket.timeout.ms": 10_000,
            "reconnect.backoff.max.ms": 1_000,
            "error_cb": error,
            "log_level": 0,
        })

    def delivered(self, why, _message) -> None:
        if why is not None:
            self.failed += 1
            error(why)

    def send(self, topic: str, key: str, value: dict, **more) -> None:
        while True:
            try:
                self.producer.produce(topic, json.dumps(value), key, on_delivery=self.delivered, **more)
                return
            except BufferError:
                self.producer.poll(0.1)

    def end(self, partitions: int, date: datetime, delay: int) -> None:
        """Behind everything else in each partition: it is sent when all that comes before is acknowledged."""
        while self.producer.flush(1):
            pass
        for partition in range(partitions):
            value = {"id": -1, "date": date.isoformat(), "delay": delay, "distance": 0, "origin": END, "destination": END}
            self.send(SOURCE, END, value, timestamp=timegm(date.timetuple()) * 1000, partition=partition)

    def close(self) -> None:
        while self.producer.flush(1):
            pass
        if self.failed:
            sys.exit(f"{self.failed} records were not acknowledged")


def airports(bootstrap: str) -> None:
    feeder = Feeder(bootstrap)
    known = duckdb.sql(f"select iata, name, city from read_csv('{DATA / 'airports.csv'}')").fetchall()
    for code, name, city in [*known, (END, END, END)]:
        feeder.send(AIRPORTS, code, {"name": name, "city": city})
    feeder.close()


def departures(file: str) -> list:
    """The flights of a file, in its order, which must be that of departure."""
    return duckdb.sql(f"""
        select date, delay, distance, origin, destination from read_csv('{file}', types = {{'date': 'timestamp'}})
    """).fetchall()


def rounds(flights: list):
    """All flights, each round behind the one before, for as long as one likes."""
    days = (flights[-1][0].date() - flights[0][0].date()).days + 1
    shift = timedelta()
    while True:
        for date, *rest_of_it in flights:
            yield date + shift, *rest_of_it
        shift += timedelta(days=days)


def feed(bootstrap: str, partitions: str, rate: str, file: str, fed: str) -> None:
    feeder, whole = Feeder(bootstrap), departures(file)
    flights = rounds(whole)
    count, owed, last, told = 0, 0.0, time.monotonic(), 0.0
    with open(fed, "w", newline="") as sent:
        rows = csv.writer(sent)
        rows.writerow(["id", "date", "delay", "distance", "origin", "destination"])
        meanwhile = None
        while meanwhile is None or count < len(whole):
            if meanwhile is None and select.select([sys.stdin], [], [], 0)[0]:
                meanwhile = count
            feeder.producer.poll(TICK)
            at = time.monotonic()
            # After a stall the rate is what it was.
            owed += int(rate) * (1 if meanwhile is None else HASTE) * min(at - last, 2 * TICK)
            last = at
            while owed >= 1:
                owed -= 1
                date, delay, distance, origin, destination = next(flights)
                value = {"id": count, "date": date.isoformat(), "delay": delay, "distance": distance,
                         "origin": origin, "destination": destination}
                rows.writerow(value.values())
                feeder.send(SOURCE, origin, value, timestamp=timegm(date.timetuple()) * 1000)
                count += 1
            if at - told >= 1:
                told = at
                print("fed", count, flush=True)
    feeder.end(int(partitions), CLOSED, 0)
    feeder.close()
    print(json.dumps({"in_file": len(whole), "under_fire": meanwhile, "in_all": count}), flush=True)


def finish(bootstrap: str, partitions: str) -> None:
    feeder = Feeder(bootstrap)
    feeder.end(int(partitions), FINISHED, 99)
    feeder.close()


class Table:
    """A topic, how its rows are told, DuckDB's answer, and the same from a record.

    A row of the answer is the record's key, then the columns that name it, then all others: `ids` and `names` say what they are
    called in a record, which must have no others but those that are ignored.
    """

    def __init__(self, topic: str, rows: str, query: str, ids: list, names: list, ignored=()) -> None:
        self.topic, self.rows, self.query = topic, rows, query
        self.ids, self.names, self.ignored = ids, names, ignored

    def answer(self):
        """Key, id and row, as DuckDB says."""
        for key, *columns in duckdb.sql(self.query).fetchall():
            ids, rest_of_it = columns[:len(self.ids)], columns[len(self.ids):]
            yield key, self.line(ids), self.line(rest_of_it)

    def told(self, value: dict) -> tuple:
        """Id and row, as a record says."""
        known = {*self.ids, *self.names, *self.ignored}
        more = {name: value[name] for name in value if name not in known}
        return (self.line([value.get(name) for name in self.ids]),
                self.line([value.get(name) for name in self.names] + ([more] if more else [])))

    @staticmethod
    def line(values: list) -> str:
        return json.dumps(values, ensure_ascii=False)[1:-1]


def tables(delivery: str) -> list:
    """What has to be there: each in the order in which it has to come."""
    iso = "'%Y-%m-%dT%H:%M:%S"
    flight = f"origin, id, strftime(date, {iso}') as date, delay, distance, origin, destination"
    names = ["date", "delay", "distance", "origin", "destination"]
    hour, end = "date_trunc('hour', date)", "date_trunc('hour', date) + interval 1 hour"
    hours = f"origin, origin, strftime({hour}, {iso}Z'), strftime({end}, {iso}Z')"
    windows = ["origin", "window_start", "window_end"]
    figures = "count(*), sum(delay)::bigint, min(delay), max(delay)"
    sums = ["delay_sum", "delay_min", "delay_max"]
    late, by_hour = "where delay > 15", f"group by origin, {hour} order by {hour}, origin"
    met = f"""
        with hours as (
            select origin as place, {hour} as hour, count(*) as flights, sum(delay)::bigint as delay_sum from fed group by all
        )
        select origin, id, strftime(hour, {iso}Z'), strftime(date, {iso}') as date, delay, origin, city, flights, delay_sum
        from fed join airports on origin = iata
        left join hours on place = origin
            and abs(epoch_ms(date) - (epoch_ms(hour) + 3600000 - 1)) <= {WITHIN_S * 1000}
        {late} order by id, hour
    """
    found = [
        Table(SOURCE, "once", f"select {flight} from fed order by id", ["id"], names),
        Table(LATE, "once", f"select {flight} from fed {late} order by id", ["id"], names),
        Table(ENRICHED, "once",
              f"select {flight}, name, city from fed join airports on origin = iata {late} order by id",
              ["id"], [*names, "airport", "city"]),
        Table(HOURLY, "once", f"select {hours}, {figures} from fed {by_hour}", windows, ["flights", *sums]),
        Table(JOINED, "unordered", met, ["id", "hour"], ["date", "delay", "origin", "city", "flights", "delay_sum"]),
    ]
    if delivery == "exactly-once":
        return [*found, Table(DELAYS, "updated", f"select {hours}, {figures} from fed {late} {by_hour}", windows, ["late", *sums])]
    # What comes again on the way to it is counted again: only what that cannot change is compared.
    return [*found, Table(DELAYS, "updated", f"select {hours}, min(delay), max(delay) from fed {late} {by_hour}", windows,
                          sums[1:], ["late", "delay_sum"])]


def compare(bootstrap: str, partitions: str, fed: str, history: str, delivery: str) -> None:
    client, letters = (Client("compare", bootstrap, count, history) for count in (int(partitions), 1))
    duckdb.sql(f"create table fed as from read_csv('{fed}', types = {{'date': 'timestamp', 'delay': 'bigint'}})")
    duckdb.sql(f"create table airports as from read_csv('{DATA / 'airports.csv'}', types = {{'iata': 'varchar'}})")
    all_tables = tables(delivery)
    dead = [f"{transform}.dead" for transform in TRANSFORMS]
    rest(client, [table.topic for table in all_tables])
    rest(letters, dead)
    for table in all_tables:
        client.write("table", table=table.topic, rows=table.rows)
        for key, row_id, row in table.answer():
            client.write("wanted", table=table.topic, id=row_id, key=key, row=row)

        def take(message, table=table) -> None:
            key, value = (message.key() or b"").decode(), json.loads(message.value())
            if key != END:
                row_id, row = table.told(value)
                client.write("found", table=table.topic, partition=message.partition(), offset=message.offset(),
                             id=row_id, key=key, row=row)

        each(client, table.topic, take)
    for topic in dead:
        client.write("table", table=topic, rows="none")

        def letter(message, topic=topic) -> None:
            headers = {name: value.decode(errors="replace") for name, value in message.headers() or []}
            client.write("found", table=topic, partition=message.partition(), offset=message.offset(),
                         id=headers.get("headwater-error-offset", "?"), key=(message.key() or b"").decode(),
                         row=f"{headers.get('headwater-error-reason')}: {headers.get('headwater-error-message')}")

        each(letters, topic, letter)


def main() -> None:
    task, *arguments = sys.argv[1:]
    {"airports": airports, "feed": feed, "finish": finish, "compare": compare}[task](*arguments)


if __name__ == "__main__":
    main()
