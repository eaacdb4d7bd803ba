"""The floor of `--url` measurements: an HTTP/1.1 server that answers every request at once with an empty 200.

Run as a program: `python -m extauthz.loadtest.null_http`; prints a ready line with its address on stderr. It knows just
as much HTTP as the load tester sends: heads that end with an empty line, bodies with a content-length.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import sys

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_READ_BYTES = 64 * 1024


def complete_requests(received: bytes) -> tuple[int, bytes]:
    """How many whole requests these bytes hold, and what is left behind them."""
    count = 0
    while (end := received.find(_HEAD_END)) >= 0:
        length = _LENGTH.search(received, 0, end)
        end += len(_HEAD_END) + (int(length[1]) if length else 0)
        if len(received) < end:
            break
        received = received[end:]
        count += 1
    return count, received


def serve(listener: socket.socket) -> None:
    """Answer until the process is ended."""
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    peers: dict[int, tuple[socket.socket, bytes]] = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                peer = listener.accept()[0]
                peer.setblocking(False)
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                epoll.register(peer, select.EPOLLIN)
                peers[peer.fileno()] = peer, b""
            elif not _answer(peers, fd):
                peers.pop(fd)[0].close()


def _answer(peers: dict[int, tuple[socket.socket, bytes]], fd: int) -> bool:
    peer, kept = peers[fd]
    try:
        data = peer.recv(_READ_BYTES)
        count, rest = complete_requests(kept + data)
        # Answers are small and few at a time: they always fit into the socket's buffer.
        if count:
            peer.sendall(_ANSWER * count)
    except BlockingIOError:
        return True
    except OSError:
        return False
    peers[fd] = peer, rest
    return bool(data)


def main() -> None:
    """Listen on a free local port and serve."""
    with contextlib.suppress(KeyboardInterrupt), socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        print(f"ready 127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
        serve(listener)


if __name__ == "__main__":
    main()
