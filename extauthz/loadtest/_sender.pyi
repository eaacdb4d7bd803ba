from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

class Engine:
    def __new__(
        cls,
        *,
        address: str | tuple[str, int],
        protocol: str,
        payloads: tuple[bytes, ...],
        headers: bytes,
        connections: int,
        timeout: int,
        spin: int,
        capacity: int,
    ) -> Engine: ...
    def run(self) -> None: ...
    def offer(self, due: npt.NDArray[np.int64], which: npt.NDArray[np.uint32]) -> int: ...
    def collect(self) -> bytes: ...
    def withdraw(self) -> None: ...
    def stop(self) -> None: ...
    def statistics(self) -> Mapping[str, int]: ...
