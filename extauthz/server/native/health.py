"""grpc.health.v1 for a transport whose calls have one message and one answer: Check, and Watch as a stream of one."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from extauthz.server.transport import KNOWN_SERVICES, CallFailed, Status


class Health:
    """The health that is answered. `serving` may be set from any thread."""

    def __init__(self) -> None:
        self.serving = False
        self._serving: bytes = HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()
        self._not_serving: bytes = HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING).SerializeToString()
        self._unknown: bytes = HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN).SerializeToString()

    def check(self, message: bytes) -> bytes:
        """Answer Check. Raises CallFailed with NOT_FOUND for a service that is not ours."""
        if _service(message) not in KNOWN_SERVICES:
            raise CallFailed(Status.NOT_FOUND, "unknown service")
        return self._serving if self.serving else self._not_serving

    def watch(self, message: bytes) -> bytes:
        """Answer Watch with the present state; the client asks again when the stream ends."""
        if _service(message) not in KNOWN_SERVICES:
            return self._unknown
        return self._serving if self.serving else self._not_serving


def _service(message: bytes) -> str:
    try:
        service: str = HealthCheckRequest.FromString(message).service
    except DecodeError:
        raise CallFailed(Status.INTERNAL, "not a HealthCheckRequest") from None
    return service
