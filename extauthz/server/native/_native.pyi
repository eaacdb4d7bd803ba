from collections.abc import Callable

nghttp2_version: str

class Server:
    def __new__(
        cls,
        handlers: dict[str, Callable[[bytes], bytes]],
        probes: dict[str, Callable[[bytes], bytes]],
        explain: Callable[[Exception], tuple[int, str]],
        *,
        message_bytes: int,
        header_bytes: int,
        streams: int,
        connections: int,
        in_flight: int,
        held_bytes: int,
        preface_seconds: float,
        idle_seconds: float,
        call_seconds: float,
        age_seconds: float,
        age_grace_seconds: float,
    ) -> Server: ...
    def listen(self, fd: int) -> None: ...
    def serve(self) -> None: ...
    def drain(self, notice_seconds: float, seconds: float) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def statistics(self) -> dict[str, int]: ...
