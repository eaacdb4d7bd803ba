"""Every case file put to the Authorizer, with CheckRequests built as Envoy would build them.

The expectations were seen on the real Envoy; `extauthz verify --cases FILE` proves them again (tests/envoy does it).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from extauthz.authorizer import Authorizer
from extauthz.checkapi.build import Connection, check_request
from extauthz.mesh.verify.campaign import Trial
from extauthz.mesh.verify.casefile import Case, read_case_file
from extauthz.mesh.verify.certificates import Certificates
from extauthz.mesh.verify.probe import Probe
from extauthz.mesh.verify.subject import our_outcome
from extauthz.mesh.verify.trials import trial_of
from extauthz.protos.external_auth_pb2 import CheckRequest

CASES = Path(__file__).parent / "cases"
FILES = sorted(CASES.glob("*.yaml"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def connection(probe: Probe, certificates: Certificates) -> Connection:
    peer = probe.peer
    return Connection(
        source_address=probe.source,
        source_port=50000,
        destination_address=probe.destination,
        destination_port=probe.port,
        principal=next(iter((*peer.uris, *peer.dns_names)), peer.common_name) if peer is not None else "",
        peer_certificate=certificates.issue(peer)[0] if peer is not None else "",
        server_name=probe.server_name,
        tls=probe.tls,
    )


def with_metadata(message: bytes, probe: Probe) -> bytes:
    check = CheckRequest.FromString(message)
    for filter_name, key, value in probe.metadata:
        check.attributes.metadata_context.filter_metadata[filter_name].update({key: json.loads(value)})
    return check.SerializeToString()


def failures(trial: Trial, certificates: Certificates, *, raw_headers: bool) -> Iterator[str]:
    """What is not as expected, in words."""
    authorizer = Authorizer(trial.policies.resources, trial.policies.options)
    for case in trial.cases:
        for reason in _case_failures(authorizer, case, certificates, raw_headers=raw_headers):
            yield f"{trial.policies.title}: {case.probe.name}: {reason}"


def _case_failures(
    authorizer: Authorizer, case: Case, certificates: Certificates, *, raw_headers: bool
) -> Iterator[str]:
    probe, expectation = case.probe, case.expectation
    if expectation is None:
        yield "does not say what it expects"
        return
    message = check_request(
        probe.method,
        probe.target,
        probe.headers,
        host=probe.host or "",
        connection=connection(probe, certificates),
        raw_headers=raw_headers,
    )
    if message is None:
        if expectation.status != 400:
            yield "is answered 400 by Envoy"
        return
    yield from expectation.failures(our_outcome(authorizer, with_metadata(message, probe)))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_cases_are_answered_as_expected(file: Path, certificates: Certificates) -> None:
    trials = [trial_of(case_set) for case_set in read_case_file(file)]
    assert [reason for trial in trials for reason in failures(trial, certificates, raw_headers=True)] == []
