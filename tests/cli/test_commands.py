"""What all commands share: help, usage errors, exit statuses, environment variables."""

import json
import os
import subprocess
import sys

import pytest

from extauthz.cli import COMMANDS, main
from extauthz.minting import SigningKey, key_set


def extauthz(*arguments: str, seconds: float = 90) -> subprocess.CompletedProcess[str]:
    # A name server that does not answer must not take longer than a fetch may.
    environment = {**os.environ, "RES_OPTIONS": "timeout:1 attempts:1"}
    command = [sys.executable, "-m", "extauthz", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, env=environment)


def test_help_lists_every_command():
    done = extauthz("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert "Usage: " in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nonsense"], ["serve", "--nonsense"], []])
def test_wrong_usage_ends_with_two(arguments):
    done = extauthz(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_version_is_an_option_too():
    assert extauthz("--version").stdout == extauthz("version").stdout


def test_the_version_tells_what_this_installation_can_do():
    done = extauthz("version", "--verbose")
    assert done.stdout.startswith("extauthz ")
    assert "native transport: " in done.stdout
    assert "grpcio: " in done.stdout


@pytest.mark.envoy
def test_the_story_comes_out_as_told():
    done = extauthz("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all 18 answers as expected" in done.stdout
    assert done.stdout.count(" ok ") == 18


def test_a_key_set_is_shown_or_the_reason_why_it_does_not_come(tmp_path):
    import http.server
    import socket
    import threading

    key = SigningKey.generate("ES256", "k")
    body = json.dumps(key_set(key, {"kty": "what", "kid": "odd"})).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/keys"
    done = extauthz("jwks", url)
    assert done.returncode == 0
    assert "key k: " in done.stdout
    assert "passed over: odd: [kty] is not supported" in done.stdout
    (report,) = json.loads(extauthz("jwks", "--json", url).stdout)
    assert report["keys"][0]["kid"] == "k"
    server.shutdown()
    server.server_close()
    with socket.socket() as holder:  # keeps a port that nobody listens on
        holder.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{holder.getsockname()[1]}/keys"
        failed = extauthz("jwks", closed, "http://no-such-host.invalid/keys")
    assert failed.returncode == 1
    assert "connection refused" in failed.stdout
    assert "does not resolve" in failed.stdout
    assert extauthz("jwks", "ftp://x").returncode == 2
