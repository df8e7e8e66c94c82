#!/usr/bin/env python3
"""Writes the flights that left before a day, in order of departure, as the demo reads them.

    flights.py vega-datasets-3.2.1.tgz 2001-02-01 month.csv

The package is npm's; tests/data/README.md says whence its flights are. Of January 2001 it has 508,239.
"""
import hashlib
import os
import sys
import tarfile
import tempfile

import duckdb

SHA256 = "6f72fda460a9863fae5fcb32f85bcd49e1761fdea6dc6cf9f4962472881cc5a3"
MEMBER = "package/data/flights-3m.parquet"
QUERY = """
    copy (
        select strftime(date, '%Y-%m-%dT%H:%M:%S') as date, delay, distance, origin, destination
        from '{flights}' where date < timestamp '{before}' order by date
    ) to '{to}' (format csv, header true)
"""


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    package, before, to = sys.argv[1:]
    with open(package, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") \
            else hashlib.sha256(file.read()).hexdigest()
    if found != SHA256:
        sys.exit(f"{package} is another package: its SHA-256 is {found}")
    with tempfile.TemporaryDirectory() as folder:
        flights = os.path.join(folder, "flights.parquet")
        with tarfile.open(package) as archive, open(flights, "wb") as out:
            out.write(archive.extractfile(MEMBER).read())
        duckdb.sql(QUERY.format(flights=flights, before=before, to=to))
    print("flights", duckdb.sql(f"select count(*) from read_csv('{to}')").fetchall()[0][0])


if __name__ == "__main__":
    main()
