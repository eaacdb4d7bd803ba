"""Policies and keys -> decisions: the one place where authentication and authorization meet. Knows no transport.

An `Authorizer` is immutable: a reload builds a new one. It has no clock but the one it is given, does no I/O and does
not log. `decide` is the plain reading of a decision; `check` is the same decision on the hot path, with every answer
that does not depend on the request made beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import time
from typing import Any, Literal

from extauthz.authn.answers import ORIGINAL_PATH, refuse
from extauthz.authn.authenticator import Authentication, Authenticator
from extauthz.authn.keys import UNAVAILABLE, InlineKeys, KeySet, KeySetError, KeySource
from extauthz.authz.policies import AuthorizationOptions, Verdict, compile_policies
from extauthz.checkapi.read import check_request_reader
from extauthz.checkapi.write import HEADER_BYTES_LIMIT, needs_clearing, with_metadata, write_allowed, write_decision
from extauthz.decision import RBAC_DENIED_BODY, Decision
from extauthz.errors import NotAnHttpRequest, PolicyError, Problem, UsageError
from extauthz.istio.resources import JwtRule, RequestAuthentication, Resources
from extauthz.istio.workload import Workload, select
from extauthz.request import NO_CHANGES, ChangedRequest, Changes, Request

RemoteKeys = Callable[[JwtRule, RequestAuthentication, Resources], KeySource]
"""Gives the key source of a rule without inline keys (`jwksUri`, or OpenID discovery at the issuer)."""

PAYLOAD_METADATA_KEY = "jwt_payload"
"""Where the verified payload is in the answer's dynamic metadata (namespace `envoy.filters.http.ext_authz`)."""


@dataclass(frozen=True, slots=True)
class AuthorizerOptions:
    """What an `Authorizer` is told beside the policies; the names are the command line's (`--trusted-hops`, ...)."""

    workload: Workload | None = None
    root_namespace: str = "istio-system"
    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()
    jwt_algorithms: Literal["all", "rsa"] = "all"
    trusted_hops: int = 0
    cluster_domain: str = "cluster.local"
    provider: str = ""


class Authorizer:
    """The policies of one workload, compiled.

    `resources` may hold more than applies; what applies to `options.workload` is selected (all of it when None).
    `remote_keys` gives the key sources of rules without inline keys; without it those keys are never there, and tokens
    that need them are refused as the mesh does before its first fetch. Raises PolicyError with every problem found.
    """

    def __init__(
        self,
        resources: Resources,
        options: AuthorizerOptions | None = None,
        *,
        remote_keys: RemoteKeys | None = None,
    ) -> None:
        self.options = options or AuthorizerOptions()
        self.resources = select(resources, self.options.workload, self.options.root_namespace)
        problems: list[Problem] = []
        rules = list(_rules(self.resources, resources, remote_keys, problems))
        try:
            self.policies = compile_policies(
                self.resources.authorization_policies, _authorization_options(self.options)
            )
        except PolicyError as error:
            problems.extend(error.problems)
        if problems:
            raise PolicyError(problems)
        self.authenticator = Authenticator(rules, algorithms=self.options.jwt_algorithms)
        self.reasons: dict[str, int] = {}
        """How often each reason was the answer of `check`; plain integers, read when metrics are scraped."""
        self._custom = self.policies.custom if self.policies.has_custom else None
        self._authenticate = self.authenticator.authenticate
        self._authorize = self.policies.decide
        self.reads_headers = self.authenticator.reads_headers | self.policies.reads_headers
        """The headers (lower case) that decisions look at; the rest of a request's are not taken out of the message."""
        self._read = check_request_reader(self.reads_headers)
        # Only refusals look at this one, and looking for it in every request costs more than reading those again.
        self._read_refused = check_request_reader((ORIGINAL_PATH,))
        self._denials: dict[str, _Answer] = {}
        self._effect = _Effect(NO_CHANGES, self.policies.reads_headers)
        self._keeps_decisions = False

    def decide(self, request: Request, now: float) -> Decision:
        """Allow or deny one request at the time `now` (Unix seconds): CUSTOM, authentication, AUDIT, DENY, ALLOW."""
        verdict = self._custom(request) if self._custom is not None else None
        if verdict is not None:
            return _decision(verdict, None)
        authentication = self._authenticate(request, now)
        if authentication.refusal is not None:
            return refuse(request, authentication.refusal)
        changes = authentication.changes
        seen = ChangedRequest(request, changes) if changes else request
        return _decision(self._authorize(seen, authentication.identity), authentication)

    def check(self, message: bytes) -> bytes:
        """Answer a Check call now: CheckRequest bytes to CheckResponse bytes.

        Raises MalformedCheckRequest when the bytes are no CheckRequest.
        """
        try:
            return self._answer(self._read(message), message).written
        except NotAnHttpRequest:
            return self._count(_NOT_HTTP).written

    def check_logged(self, message: bytes) -> tuple[bytes, Request | None, Decision]:
        """As `check`, with what a decision log wants to know; the request is None when the call asked about none."""
        self._keeps_decisions = True
        try:
            request = self._read(message)
        except NotAnHttpRequest:
            return self._count(_NOT_HTTP).written, None, _NOT_HTTP
        answer = self._answer(request, message)
        decision = answer.decision
        if decision is None:
            # It was made by `check`, before there was a log.
            decision = self.decide(request, time())
        return answer.written, request, decision

    def _answer(self, request: Request, message: bytes) -> _Answer:
        """The answer to a request that was read from `message`, made beforehand where it does not depend on it."""
        if self._custom is not None and (verdict := self._custom(request)) is not None:
            return self._count(_decision(verdict, None))
        authentication = self._authenticate(request, time())
        prepared: _Prepared | None = authentication.prepared
        if prepared is None:
            if authentication.refusal is not None:
                return self._count(refuse(self._read_refused(message), authentication.refusal))
            prepared = authentication.prepared = self._prepare(authentication)
        effect = prepared.effect
        seen = request if effect.unseen else ChangedRequest(request, effect.changes)
        verdict = self._authorize(seen, authentication.identity)
        allowed, _, reason, metadata = verdict
        try:
            self.reasons[reason] += 1
        except KeyError:
            self.reasons[reason] = 1
        if metadata:
            return _write(_decision(verdict, authentication), len(message))
        if not allowed:
            denial = self._denials.get(reason)
            if denial is None:
                denial = self._denials[reason] = _write(_decision(verdict, None))
            return denial
        if effect.added_bytes and len(message) + effect.added_bytes > HEADER_BYTES_LIMIT:
            return _write(_decision(verdict, authentication), len(message))
        if not prepared.written:
            self._fill(prepared, verdict, authentication)
        return prepared

    def _prepare(self, authentication: Authentication) -> _Prepared:
        effect = self._effect
        if effect.changes is not authentication.changes:
            effect = self._effect = _Effect(authentication.changes, self.policies.reads_headers)
        return _Prepared(effect)

    def _fill(self, prepared: _Prepared, verdict: Verdict, authentication: Authentication) -> None:
        """Write the answer to all requests that are allowed with this result of authentication."""
        if self._keeps_decisions:
            prepared.decision = _decision(verdict, authentication)
        prepared.written = with_metadata(prepared.effect.written, _payload(authentication))

    def _count(self, decision: Decision) -> _Answer:
        self.reasons[decision.reason] = self.reasons.get(decision.reason, 0) + 1
        return _write(decision)


class _Answer:
    """A CheckResponse, and the decision that it says; None where none was kept."""

    __slots__ = ("decision", "written")

    def __init__(self, written: bytes, decision: Decision | None) -> None:
        self.written = written
        self.decision = decision


class _Effect:
    """What follows from the changes of authentication alone; many tokens have the same.

    `unseen`: the policies look at nothing that changed. `written` is an allowed answer without metadata.
    """

    __slots__ = ("added_bytes", "changes", "unseen", "written")

    def __init__(self, changes: Changes, reads_headers: frozenset[str]) -> None:
        self.changes = changes
        self.unseen = changes.path is None and reads_headers.isdisjoint(changes.headers)
        self.added_bytes = changes.added_bytes
        self.written = write_allowed(changes, {})


class _Prepared(_Answer):
    """The answer to allowed requests with one result of authentication; nothing is written before the first of them."""

    __slots__ = ("effect",)

    def __init__(self, effect: _Effect) -> None:
        self.written = b""
        self.decision = None
        self.effect = effect


def _write(decision: Decision, request_bytes: int = 0) -> _Answer:
    clear_first = request_bytes > 0 and needs_clearing(decision.changes, request_bytes)
    return _Answer(write_decision(decision, clear_first=clear_first), decision)


_NOT_HTTP = Decision(False, 403, RBAC_DENIED_BODY, reason="not_an_http_request")


def _decision(verdict: Verdict, authentication: Authentication | None) -> Decision:
    if not verdict.allowed:
        return Decision(
            False,
            403,
            RBAC_DENIED_BODY,
            (("content-type", "text/plain"),),
            verdict.reason,
            metadata=verdict.metadata,
        )
    if authentication is None:
        return Decision(True, reason=verdict.reason, metadata=verdict.metadata)
    metadata = {**verdict.metadata, **_payload(authentication)}
    return Decision(True, reason=verdict.reason, changes=authentication.changes, metadata=metadata)


def _payload(authentication: Authentication) -> dict[str, Any]:
    claims = authentication.identity.claims
    return {PAYLOAD_METADATA_KEY: claims} if claims else {}


def _authorization_options(options: AuthorizerOptions) -> AuthorizationOptions:
    return AuthorizationOptions(
        trust_domain=options.trust_domain,
        trust_domain_aliases=options.trust_domain_aliases,
        root_namespace=options.root_namespace,
        trusted_hops=options.trusted_hops,
        provider=options.provider,
    )


def _rules(
    selected: Resources, everything: Resources, remote_keys: RemoteKeys | None, problems: list[Problem]
) -> Iterator[tuple[JwtRule, KeySource]]:
    """Every rule that applies with the source of its keys. Key sets that cannot be used are added to `problems`."""
    for policy in selected.request_authentications:
        for index, rule in enumerate(policy.jwt_rules):
            if rule.jwks:
                try:
                    yield rule, InlineKeys(KeySet.parse(rule.jwks))
                except KeySetError as error:
                    problems.append(
                        policy.problem(("spec", "jwtRules", index, "jwks"), error.reason, code="bad-key-set")
                    )
            elif remote_keys is not None:
                try:
                    yield rule, remote_keys(rule, policy, everything)
                except UsageError as error:
                    problems.append(policy.problem(("spec", "jwtRules", index), str(error), code="bad-key-set-url"))
            else:
                yield rule, InlineKeys(UNAVAILABLE)
