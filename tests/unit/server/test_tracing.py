"""Spans as `serve --otel` sends them to a collector, and what it costs where nobody asked for them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]

# Put into the server's interpreter: patience with a busy machine, on which the usual time to send what waits is short.
PATIENT = """
from extauthz.server import service, tracing
service.CLOSE_SECONDS, tracing._FLUSH_MILLISECONDS = 50.0, 50_000
"""

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """The URL of a server that takes spans (OTLP over HTTP), and what it got."""
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()


def test_spans_reach_a_collector_and_continue_the_trace(
    serve: Start, policy_file: Path, story: Any, collector: tuple[str, list[bytes]], tmp_path: Path
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    url, got = collector
    (tmp_path / "sitecustomize.py").write_text(PATIENT)
    where = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_COMPRESSION": "none", "NO_PROXY": "*"}
    where["PYTHONPATH"] = str(tmp_path)
    server = serve("--policy", policy_file, "--otel", environment=where)
    assert server.check("/private", story.token, traceparent=f"00-{TRACE}-{PARENT}-01") == 200
    assert server.terminate() == 0  # sends what waits
    requests = [ExportTraceServiceRequest.FromString(message) for message in got]
    (span,) = (
        s for r in requests for resource in r.resource_spans for scope in resource.scope_spans for s in scope.spans
    )
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.start_time_unix_nano <= span.end_time_unix_nano
    assert story.token.encode() not in b"".join(got)


def test_a_collector_that_is_down_holds_up_no_call_and_not_the_end(
    serve: Start, policy_file: Path, closed_port: int
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    # The exporter would try for longer than anybody waits here.
    where = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{closed_port}", "OTEL_EXPORTER_OTLP_TIMEOUT": "600"}
    where["NO_PROXY"] = "*"
    server = serve("--policy", policy_file, "--otel", environment=where)
    for _ in range(50):
        assert server.check("/private") == 403
    assert server.terminate() == 0


def test_without_otel_nothing_of_opentelemetry_is_imported(policy_file: Path, tmp_path: Path) -> None:
    program = f"""
import sys
from extauthz.server.options import ServeOptions
from extauthz.server.service import Service
options = ServeOptions(policy=({str(policy_file)!r},), listen=("unix:{tmp_path}/s",), transport="grpcio")
service = Service(options, options.addresses)
service.load()
service.open()
service.stop()
sys.exit(any(name.partition(".")[0] == "opentelemetry" for name in sys.modules))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
