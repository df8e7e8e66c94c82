#!/usr/bin/env python3
"""Computes, with DuckDB, what the flights pipeline must answer: the delays over 15 minutes, by origin and hour.

    expected.py FLIGHTS.csv[.zst] AIRPORTS.csv > expected.csv

One row for each origin and tumbling hour of departure in which a flight left more than 15 minutes late:

    origin, hour    the airport's code, and the hour's beginning
    city, state     whether asked for with --enriched: what the airports table says of the origin
    flights         all flights of that origin and hour, late or not
    late            those more than 15 minutes late: the filter keeps these
    delay_sum, delay_min, delay_max    of the late ones, in minutes; the mean is delay_sum / late

It knows nothing of Headwater. It must never be changed to agree with Headwater.
"""
import sys

import duckdb

QUERY = """
    select origin,
           strftime(date_trunc('hour', date), '%Y-%m-%dT%H:%M:%S') as hour,
           {enriched}
           count(*) as flights,
           count(*) filter (delay > 15) as late,
           sum(delay) filter (delay > 15) as delay_sum,
           min(delay) filter (delay > 15) as delay_min,
           max(delay) filter (delay > 15) as delay_max
    from read_csv('{flights}', types = {{'date': 'timestamp', 'delay': 'bigint'}})
    join read_csv('{airports}', types = {{'iata': 'varchar'}}) on origin = iata
    group by all
    having late > 0
    order by origin, hour
"""


def main() -> None:
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    if len(words) != 2:
        sys.exit(__doc__)
    flights, airports = words
    enriched = "city, state," if "--enriched" in sys.argv else ""
    rows = duckdb.sql(QUERY.format(flights=flights, airports=airports, enriched=enriched))
    print(",".join(rows.columns))
    for row in rows.fetchall():
        print(",".join(str(field) for field in row))


if __name__ == "__main__":
    main()
