"""
A client that keeps some connections busy, as cheaply as Python can.

    python -m bench.load PORT METHOD COUNT CONNECTIONS TARGET...

Each TARGET has a %d for the request's number. Prints, as JSON, how long all of it took and what was
answered.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import Counter


def exchange(
    port: int, method: str, count: int, connections: int, target: str
) -> dict[str, object]:
    """
    :param target: of the requests, with a %d for the number.
    :return: the seconds from the first request to the last answer, and how often which status came.
    """
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    received: dict[int, bytes] = {}
    statuses: Counter[str] = Counter()
    sent = 0

    def send(client: socket.socket) -> None:
        nonlocal sent
        client.sendall(f"{method} {target % sent} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        sent += 1

    for _ in range(connections):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[client.fileno()] = client
        received[client.fileno()] = b""
        poll.register(client, select.EPOLLIN)
    began = time.monotonic()
    for client in sockets.values():
        send(client)
    while statuses.total() < count:
        for descriptor, _ in poll.poll():
            client = sockets[descriptor]
            data = received[descriptor] + client.recv(65536)
            head, end, body = data.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
            if not end or len(body) < length:
                received[descriptor] = data
                continue
            received[descriptor] = b""
            statuses[head[9:12].decode()] += 1
            if sent < count:
                send(client)
    return {"seconds": time.monotonic() - began, "statuses": statuses}


if __name__ == "__main__":
    port, method, count, connections, target = sys.argv[1:]
    print(json.dumps(exchange(int(port), method, int(count), int(connections), target)))
