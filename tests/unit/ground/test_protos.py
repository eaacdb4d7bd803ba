"""The message modules are what the .proto files say, and both read and write the bytes of Envoy's full API."""

import sys
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.core.v3 import Address, HeaderMap, HeaderValue, SocketAddress
from envoy_data_plane.envoy.service.auth.v3 import (
    AttributeContext,
    AttributeContextHttpRequest,
    AttributeContextPeer,
    AttributeContextRequest,
    AttributeContextTlsSession,
)
from envoy_data_plane.envoy.service.auth.v3 import CheckRequest as FullCheckRequest
from envoy_data_plane.envoy.service.auth.v3 import CheckResponse as FullCheckResponse

from extauthz.checkapi.write import write_decision
from extauthz.decision import Decision
from extauthz.protos.external_auth_pb2 import CheckRequest, CheckResponse
from extauthz.request import Changes

ROOT = Path(__file__).parents[3]


def full_request() -> FullCheckRequest:
    peer = AttributeContextPeer(
        address=Address(socket_address=SocketAddress(address="192.0.2.7", port_value=4711)),
        service="caller",
        labels={"app": "web"},
        principal="spiffe://cluster.local/ns/a/sa/b",
        certificate="-----BEGIN%20CERTIFICATE-----",
    )
    http = AttributeContextHttpRequest(
        id="17",
        method="POST",
        headers={":path": "/p", "x-a": "1"},
        header_map=HeaderMap(headers=[HeaderValue(key="x-raw", raw_value=b"\xff\x00")]),
        path="/p?q",
        host="h.example",
        scheme="https",
        size=3,
        protocol="HTTP/2",
        body="abc",
        raw_body=b"\xff",
    )
    return FullCheckRequest(
        attributes=AttributeContext(
            source=peer,
            destination=peer,
            request=AttributeContextRequest(http=http),
            context_extensions={"virtual_host": "v"},
            tls_session=AttributeContextTlsSession(sni="s.example"),
        )
    )


def test_the_message_modules_are_what_the_proto_files_say(tmp_path):
    sys.path.insert(0, str(ROOT / "protos"))
    try:
        from generate import generate
    finally:
        sys.path.remove(str(ROOT / "protos"))
    generate(tmp_path)
    built = sorted((tmp_path / "extauthz" / "protos").iterdir())
    assert built
    for file in built:
        assert file.read_text() == (ROOT / "extauthz" / "protos" / file.name).read_text(), file.name


def test_a_full_check_request_is_read():
    attributes = CheckRequest.FromString(bytes(full_request())).attributes
    assert attributes.source.address.socket_address.address == "192.0.2.7"
    assert attributes.destination.address.socket_address.port_value == 4711
    assert attributes.source.principal == "spiffe://cluster.local/ns/a/sa/b"
    http = attributes.request.http
    assert (http.method, http.path, http.host, http.scheme, http.id) == ("POST", "/p?q", "h.example", "https", "17")
    assert dict(http.headers) == {":path": "/p", "x-a": "1"}
    assert [(header.key, header.raw_value) for header in http.header_map.headers] == [("x-raw", b"\xff\x00")]
    assert attributes.tls_session.sni == "s.example"
    assert dict(attributes.context_extensions) == {"virtual_host": "v"}


def test_fields_that_we_leave_out_survive_a_round_trip():
    original = full_request()
    passed = FullCheckRequest.parse(CheckRequest.FromString(bytes(original)).SerializeToString())
    assert passed == original


@pytest.mark.parametrize(
    "decision",
    [
        Decision(
            True, changes=Changes({"x-sub": ("u",), "authorization": ()}, "/p"), metadata={"jwt_payload": {"n": 1.5}}
        ),
        Decision(
            False, 401, "Jwt is expired", (("www-authenticate", "Bearer"),), "jwt_authn_access_denied{Jwt_is_expired}"
        ),
        Decision(True),
    ],
)
def test_what_we_answer_reads_the_same_with_the_full_api(decision):
    written = write_decision(decision)
    full = FullCheckResponse.parse(written)
    assert CheckResponse.FromString(bytes(full)) == CheckResponse.FromString(written)
    if decision.allowed:
        assert full.ok_response is not None
        assert [option.header.key for option in full.ok_response.headers] == [
            *([":path"] if decision.changes.path else []),
            *(name for name, lines in decision.changes.headers.items() if lines),
        ]
        assert full.status is None or full.status.code == 0
    else:
        assert full.denied_response is not None
        assert full.denied_response.status is not None
        assert full.denied_response.status.code == decision.status
        assert full.denied_response.body == decision.body
        assert full.status is not None
        assert full.status.code == 16
