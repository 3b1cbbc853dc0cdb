"""Uploads without a key, and a server that refuses them at once, each in a process of its own.

    python uploads.py send PORT SECONDS    twenty at once, every so many seconds, until its input ends
    python uploads.py refuse PORT          answers every request with 401 once its headers have come

The sender takes as little of the processors as it can: it sends one block of memory again and again. At the
end it prints what it did, as JSON.
"""

from __future__ import annotations

import json
import resource
import socket
import sys
import threading
import time
from collections import Counter

AT_ONCE = 20
SIZE = 600 << 20
_BLOCK = bytes(1 << 18)
_CHUNK = b"%x\r\n%b\r\n" % (len(_BLOCK), _BLOCK)
_REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"


def upload(port: int, *, declared: bool) -> tuple[str, int]:
    """Send until the other side wants no more. Returns its status, and how many bytes went out."""
    length = f"content-length: {SIZE}" if declared else "transfer-encoding: chunked"
    lines = ["POST /v1/messages HTTP/1.1", "host: 127.0.0.1", "content-type: application/json", length]
    head = "\r\n".join([*lines, "authorization: Bearer sk-nobody-knows", "", ""]).encode()
    block = _BLOCK if declared else _CHUNK
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall(head)
            while sent < SIZE:
                connection.sendall(block)
                sent += len(_BLOCK)
        except OSError:
            # The other side has closed; its answer may be here all the same.
            pass
        try:
            status = connection.recv(12).decode("latin-1").removeprefix("HTTP/1.1 ")
        except OSError:
            status = "reset"
    return status, sent


def send(port: int, period: float) -> None:
    """``period``: seconds from one start of all to the next one."""
    stop = threading.Event()
    together = threading.Barrier(AT_ONCE)
    statuses: Counter[str] = Counter()
    amounts: list[int] = []

    def one(number: int) -> None:
        while not stop.is_set():
            try:
                together.wait()
            except threading.BrokenBarrierError:
                return
            began = time.monotonic()
            try:
                status, sent = upload(port, declared=number % 2 == 0)
            except OSError as error:
                status, sent = type(error).__name__, 0
            statuses[status] += 1
            amounts.append(sent)
            stop.wait(max(0.0, began + period - time.monotonic()))
        together.abort()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(AT_ONCE)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "statuses": statuses,
                "megabytes": sum(amounts) / 2**20,
                "processor": (used.ru_utime + used.ru_stime) / (time.monotonic() - start),
            }
        )
    )


def refuse(port: int) -> None:
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.recv(65_536)
                    connection.sendall(_REFUSAL)
                except OSError:
                    continue


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(int(sys.argv[2]), float(sys.argv[3]))
    else:
        refuse(int(sys.argv[2]))
