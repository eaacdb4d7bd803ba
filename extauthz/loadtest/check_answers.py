"""CheckResponse bytes -> the outcome of a Check call, for the portable sender; `native/answer.c` does the same."""

from __future__ import annotations

from http import HTTPStatus

from google.protobuf.message import DecodeError

from extauthz.loadtest.outcomes import Outcome
from extauthz.protos.external_auth_pb2 import CheckResponse

_HTTP_STATUSES = range(100, 600)


def check_outcome(message: bytes) -> int:
    """As Envoy's ext_authz filter reads it: status 0 lets the request pass, whatever else the answer says; otherwise
    `denied_response.status` is the client's HTTP status, 403 where it is missing.
    """
    try:
        response = CheckResponse.FromString(message)
    except DecodeError:
        return Outcome.PROTOCOL
    if response.status.code == 0:
        return Outcome.ALLOWED
    status = response.denied_response.status.code
    return status if status in _HTTP_STATUSES else HTTPStatus.FORBIDDEN
