"""One verification from start to end: Envoy up, trials put to both sides, Envoy down."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable
from pathlib import Path

from extauthz.mesh.verify.campaign import Campaign, Progress, Report, Trial
from extauthz.mesh.verify.harness import run_harness
from extauthz.mesh.verify.served import Servers


def verify(
    trials: Iterable[Trial], *, envoy: str = "", through_envoy: bool = False, progress: Progress | None = None
) -> Report:
    """Compare both sides on all trials.

    `envoy` names the binary; with `through_envoy` our side is a running server behind the real `ext_authz` filter.
    Raises UsageError, PolicyError, EnvoyError and ServiceError.
    """
    return asyncio.run(_verify(trials, envoy, through_envoy, progress))


async def _verify(trials: Iterable[Trial], envoy: str, through_envoy: bool, progress: Progress | None) -> Report:
    with tempfile.TemporaryDirectory(prefix="extauthz-verify-") as directory:
        servers = Servers(Path(directory)) if through_envoy else None
        clusters = servers.clusters() if servers is not None else ()
        async with run_harness(binary=envoy, clusters=clusters) as harness:
            return await Campaign(harness, servers, progress).run(trials)
