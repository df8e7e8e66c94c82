"""What the Python drivers share: the features, each run by itself, and how their outcome is told.

A driver is called as `DRIVER BOOTSTRAP TOPIC-PREFIX REPLICAS` and prints one JSON object a line: first which client it is, then one for
each feature: `{"feature": NAME, "outcome": "pass" | "fail" | "absent", "why": TEXT}`. `absent` means that the client has no
call for it. A driver never fails as a whole: what goes wrong is the outcome of a feature.

`{"kill": NODE}` asks for that node to be killed and started again; a line on stdin says that it is back.
"""
import json
import sys
import threading
import time
import traceback

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
RECORDS = 300


class Absent(Exception):
    """The client has no way to do it."""


def values(tag: str) -> list[bytes]:
    """Values that compress, differ, and are of different lengths."""
    return [f"{tag} {number} {'water ' * (number % 13)}".encode() for number in range(RECORDS)]


def expect(found, wanted, what: str) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: {str(found)[:200]} instead of {str(wanted)[:200]}")


def eventually(check):
    """What `check` gives when it does not fail: the node that is asked may learn of a change after the one that made it."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return check()
        except Exception:  # noqa: BLE001: the last one is the outcome
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def tell(**fields) -> None:
    print(json.dumps(fields), flush=True)


def kill(node) -> threading.Event:
    """Has the ring kill a node; it is set when the node is back."""
    back = threading.Event()
    def wait() -> None:
        sys.stdin.readline()
        back.set()
    tell(kill=str(node))
    threading.Thread(target=wait, daemon=True).start()
    return back


def while_killed(leader, send, poll) -> int:
    """Sends one record after the other while the leader is killed and comes back, and reads them: `poll` answers offsets and
    values. Answers how many there were; each must be there once, in order."""
    found, number, last, back = {}, 0, None, None
    while last is None or number < last:
        send(f"killed {number}".encode())
        found.update(poll())
        if number == 200:
            back = kill(leader())
        if last is None and back and back.is_set():
            last = number + 200
        number += 1
    deadline = time.monotonic() + 60
    while len(found) < number and time.monotonic() < deadline:
        found.update(poll())
    expect(sorted(found.items()), [(at, f"killed {at}".encode()) for at in range(number)], "records by offset")
    return number


def run(client: str, version: str, features: dict) -> None:
    tell(client=client, version=version)
    for feature, check in features.items():
        try:
            check()
        except Absent as absent:
            tell(feature=feature, outcome="absent", why=str(absent))
        except BaseException as failure:  # noqa: BLE001: whatever it is, it is the feature's outcome
            traceback.print_exc(file=sys.stderr)
            tell(feature=feature, outcome="fail", why=f"{type(failure).__name__}: {failure}"[:300])
        else:
            tell(feature=feature, outcome="pass", why="")
