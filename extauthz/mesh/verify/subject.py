"""Our side: the `Authorizer` in the place where Envoy would ask it, and what its answer comes to."""

from __future__ import annotations

import time
from dataclasses import replace

from google.protobuf.json_format import MessageToDict

from extauthz.authorizer import Authorizer
from extauthz.checkapi.read import read_check_request
from extauthz.mesh.rbac_filter import RBAC_FILTER
from extauthz.mesh.verify.ext_authz import effect
from extauthz.mesh.verify.outcome import Outcome
from extauthz.protos.external_auth_pb2 import CheckRequest, CheckResponse


def our_outcome(authorizer: Authorizer, message: bytes) -> Outcome:
    """What becomes of the request that a CheckRequest is about when this authorizer is asked.

    An exception is an outcome too: Envoy's answer to a gRPC error, with the exception as its reason.
    """
    try:
        response = CheckResponse.FromString(authorizer.check(message))
        # Allowed by us and refused all the same, by the upstream's codec: that has reasons of its own.
        denied = response.status.code != 0
        reason = authorizer.decide(read_check_request(message), time.time()).reason if denied else ""
    except Exception as error:
        return Outcome(status=503, details=f"{type(error).__name__}: {error}")
    outcome = effect(CheckRequest.FromString(message), response)
    recorded = MessageToDict(response.dynamic_metadata)
    hint = recorded.get("envoy.common", {}).get("access_log_hint")
    return replace(
        outcome,
        details=reason or outcome.details,
        shadow={key: str(value) for key, value in recorded.get(RBAC_FILTER, {}).items()},
        audit="" if hint is None else str(hint).lower(),
    )
