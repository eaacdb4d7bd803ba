"""The methods that the grpcio transport answers: handlers of the seam, health, reflection, and the refusal of overload.

grpcio runs a method in its server's thread pool unless the method's function names a pool of its own
(`experimental_thread_pool`): health and reflection do, so that they answer while every thread is taken by calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from threading import Lock
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import HealthServicer
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION_SERVICE
from grpc_reflection.v1alpha.reflection import ReflectionServicer

from extauthz.errors import MalformedCheckRequest
from extauthz.protos import external_auth_pb2
from extauthz.server.transport import (
    HEALTH_CHECK_METHOD,
    HEALTH_SERVICE,
    HEALTH_WATCH_METHOD,
    KNOWN_SERVICES,
    CallFailed,
    Handler,
    Status,
)

INTERNAL_TEXT = "internal error"

if TYPE_CHECKING:  # Only the stubs know these as generic.
    _Method = grpc.RpcMethodHandler[Any, Any]
    _Handler = grpc.GenericRpcHandler[Any, Any]
else:
    _Handler = grpc.GenericRpcHandler

Admission = Callable[[grpc.ServicerContext], None]
"""Ends a call (`context.abort`) that may not be answered, otherwise does nothing."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class CountingPool(ThreadPoolExecutor):
    """A thread pool that knows how many calls were begun and not yet answered, those that wait included.

    Calls are submitted by grpcio's one serving thread, so `begun` needs no lock.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(threads, thread_name_prefix="check")
        self.begun = 0
        self._ended = 0
        self._lock = Lock()

    @property
    def in_flight(self) -> int:
        """Calls begun and not yet answered."""
        return self.begun - self._ended

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        self.begun += 1
        return super().submit(self._run, function, arguments, named)

    def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        try:
            function(*arguments, **named)
        finally:
            with self._lock:
                self._ended += 1


class InlinePool(ThreadPoolExecutor):
    """Runs what is submitted at once, in the thread that submits: for answers that wait for nothing."""

    def __init__(self) -> None:
        super().__init__(1)

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **named))
        return future


class Methods(_Handler):
    """All methods by path. Check calls beyond `in_flight` are ended at once, before their message is read.

    `handlers` are called one at a time, whatever the number of threads.
    """

    def __init__(
        self, handlers: dict[str, Handler], *, pool: CountingPool, in_flight: int, admit: Admission | None = None
    ) -> None:
        self.shed = 0
        self.health = Health()
        self._pool = pool
        self._in_flight = in_flight or float("inf")
        self._shed_method = _shedding_method()
        turn = Lock()
        self._handlers = {path: _unary(handler, turn, admit) for path, handler in handlers.items()}
        self._others = {**self.health.methods(), **_reflection_methods(pool_threads=2)}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> _Method | None:
        path = handler_call_details.method
        method = self._handlers.get(path)
        if method is None:
            return self._others.get(path)
        if self._pool.in_flight >= self._in_flight:
            self.shed += 1
            return self._shed_method
        return method


class Health:
    """grpc.health.v1: NOT_SERVING until told otherwise."""

    def __init__(self) -> None:
        self._servicer = HealthServicer()
        self.set_serving(False)

    def set_serving(self, serving: bool) -> None:
        """What Check and Watch answer for KNOWN_SERVICES."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in KNOWN_SERVICES:
            self._servicer.set(service, status)

    def methods(self) -> dict[str, _Method]:
        """The two methods by path, in a thread of their own."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="health")
        read = health_pb2.HealthCheckRequest.FromString
        write = health_pb2.HealthCheckResponse.SerializeToString

        def check(request: Any, context: grpc.ServicerContext) -> Any:
            return self._servicer.Check(request, context)

        def watch(request: Any, context: grpc.ServicerContext, send: Callable[[Any], None]) -> Any:
            return self._servicer.Watch(request, context, send)

        check.experimental_thread_pool = watch.experimental_thread_pool = pool  # type: ignore[attr-defined]
        watch.experimental_non_blocking = True  # type: ignore[attr-defined]
        return {
            HEALTH_CHECK_METHOD: grpc.unary_unary_rpc_method_handler(check, read, write),
            HEALTH_WATCH_METHOD: grpc.unary_stream_rpc_method_handler(watch, read, write),
        }


def _unary(handler: Handler, turn: AbstractContextManager[Any], admit: Admission | None) -> _Method:
    def method(message: bytes, context: grpc.ServicerContext) -> bytes:
        if admit is not None:
            admit(context)
        try:
            with turn:
                return handler(message)
        except MalformedCheckRequest as error:
            code, text = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except CallFailed as error:
            code, text = _CODES[error.status], error.text
        except Exception:
            code, text = grpc.StatusCode.INTERNAL, INTERNAL_TEXT
        context.abort(code, text)
        raise AssertionError("abort does not return")

    return grpc.unary_unary_rpc_method_handler(method)


def _shedding_method() -> _Method:
    def shed(messages: Iterable[bytes], context: grpc.ServicerContext) -> bytes:
        context.abort(_CODES[Status.RESOURCE_EXHAUSTED], "too many calls in flight")
        raise AssertionError("abort does not return")

    shed.experimental_thread_pool = InlinePool()  # type: ignore[attr-defined]
    # Declared as reading a stream so that grpcio does not wait for a message that nobody will look at.
    return grpc.stream_unary_rpc_method_handler(shed)


def _reflection_methods(pool_threads: int) -> dict[str, _Method]:
    services = (external_auth_pb2.DESCRIPTOR.services_by_name["Authorization"].full_name, HEALTH_SERVICE)
    servicer: Any = ReflectionServicer((*services, REFLECTION_SERVICE))

    def info(requests: Iterable[Any], context: grpc.ServicerContext) -> Any:
        return servicer.ServerReflectionInfo(requests, context)

    info.experimental_thread_pool = ThreadPoolExecutor(pool_threads, "reflection")  # type: ignore[attr-defined]
    return {
        f"/{REFLECTION_SERVICE}/ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            info,
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    }
