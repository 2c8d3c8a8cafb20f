"""Requests as bytes, of clients that may stop in the middle."""

import socket
import time

GEM = "town/gem-lite0"
FORM = "Content-Type: application/x-www-form-urlencoded"  # another one would be answered at once
STALLED = f"POST / HTTP/1.1\r\nHost: localhost\r\n{FORM}\r\nContent-Length: 9\r\n\r\nx".encode()


def connect(client, text=b""):
    one = socket.create_connection(("127.0.0.1", client.port), timeout=60)
    one.sendall(text)
    return one


def wait_until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
