"""What an operator can set about remote key sets, and the limits that nobody needs to set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_BODY_BYTES = 1024 * 1024
"""Of a key set or a discovery document, after decompression. The largest real ones are about 20 KiB."""
MAX_KEYS = 1000
MAX_REDIRECTS = 5
DEFAULT_TIMEOUT = 5.0
"""Seconds for one fetch, discovery, redirects and every address tried included (Istio: `jwtRules[].timeout`)."""


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """The `--jwks-*` options and what else a fetch depends on. Times are seconds.

    - `refresh`: between fetches, unless the answer's Cache-Control or Expires asks for an earlier one.
    - `refresh_min`: the least time that such a wish can ask for, and between two early refreshes for an unknown key id.
      A shorter `refresh` lowers it.
    - `retry_first`, `retry_max`: the back-off after failures, doubling; never longer than `refresh`.
    - `max_stale`: how long a set is used after the last successful fetch.
    - `ca_file`: certificates (PEM) that are trusted besides the system's.
    - `egress`: `mesh` reaches hosts outside the cluster only through a ServiceEntry (Istio: REGISTRY_ONLY).
    - `cache_dir`: where the last good sets are kept over restarts; blank for nowhere.
    - `resolve`: `HOST=ADDRESS` overrides of name resolution (see `resolver.Overrides.parse`).
    - `proxy`: an HTTP proxy for hosts outside the cluster without a ServiceEntry. The environment's is not used.
    - `concurrency`: fetches at once; as many again for key sets that have been failing.
    """

    refresh: float = 1200.0
    refresh_min: float = 60.0
    retry_first: float = 1.0
    retry_max: float = 60.0
    max_stale: float = 7 * 86400.0
    ca_file: str = ""
    egress: Literal["open", "mesh"] = "open"
    cache_dir: str = ""
    resolve: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    root_namespace: str = "istio-system"
    proxy: str = ""
    concurrency: int = 16
