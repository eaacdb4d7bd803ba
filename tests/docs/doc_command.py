"""The `extauthz` on a page's PATH: asks the command server, or becomes the real command where a network is needed.

Started as a script with `python -IS`; imports as little as it can.
"""

from __future__ import annotations

import json
import os
import socket
import sys


def main() -> None:
    """Run the command of the command line and exit with its status."""
    server, real, shared = os.environ["DOCS_COMMAND_SERVER"], os.environ["DOCS_REAL_COMMAND"], sys.argv[1:2]
    if not server or not shared or shared[0] not in os.environ["DOCS_SHARED_COMMANDS"].split():
        os.execv(real, [real, *sys.argv[1:]])
    asked = {"arguments": sys.argv[1:], "directory": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(server)
        socket.send_fds(client, [json.dumps(asked).encode() + b"\n"], [0, 1, 2])
        answer = client.recv(16)
    sys.exit(int(answer or 70))


main()
