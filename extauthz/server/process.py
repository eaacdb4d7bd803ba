"""What a process costs, as Prometheus clients name it: CPU time, resident memory, open files, start time."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from extauthz.server.metrics import NO_LABELS, Snapshot


class ProcessStatistics:
    """Reads /proc for this process; what cannot be read (no /proc) is left out."""

    def __init__(self) -> None:
        self._started = _start_time()

    def snapshot(self) -> Snapshot:
        """The values now."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        found: Snapshot = {"process_cpu_seconds": {NO_LABELS: usage.ru_utime + usage.ru_stime}}
        if self._started is not None:
            found["process_start_time_seconds"] = {NO_LABELS: self._started}
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            found["process_resident_memory_bytes"] = {NO_LABELS: pages * os.sysconf("SC_PAGE_SIZE")}
            found["process_open_fds"] = {NO_LABELS: len(os.listdir("/proc/self/fd"))}
        except OSError:
            pass
        return found


def _start_time() -> float | None:
    try:
        booted = next(int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if "btime" in line)
        # The command name, the second field, may contain blanks and parentheses.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    return booted + ticks / os.sysconf("SC_CLK_TCK")
