"""All rules of a workload -> who a request comes from: Istio's requirement tree, walked as Envoy walks it.

One rule is `any(origins-0, allow_missing)`. Several are `any(origins-0, origins-1, ..., all(any(origins-0,
allow_missing), any(origins-1, allow_missing), ...))`: the first branch that succeeds ends it. Everything works on the
live request, so what a rule wrote or removed stays when it then fails.

What was worked out is remembered: where all rules look in one and the same header, the whole result by that header's
value (one dict look-up), otherwise what each token was found to be. A remembered answer is used only at times and with
the keys under which it would be worked out again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final, Literal, Protocol

from extauthz.authn.cache import Cache, Entry
from extauthz.authn.keys import KeySet, KeySource
from extauthz.authn.limits import MAX_TOKENS, CacheLimits
from extauthz.authn.live_request import LiveRequest
from extauthz.authn.locations import Found, after_prefix
from extauthz.authn.provider import Finding, Provider, compile_providers
from extauthz.authn.statuses import Refusal, Status
from extauthz.identity import Identity, anonymous
from extauthz.istio.resources import JwtRule
from extauthz.request import NO_CHANGES, NO_LINES, Changes, Request

_PAYLOAD_FACTOR: Final = 6
"""Bytes that a payload's claims take as Python values, for each character of it, about."""

_RESULT_BYTES: Final = 700
"""What an `Authentication`, its identity and its ready-made answer take beside the claims, about."""

_TOO_MANY: Final = Finding(Status.FORM, None, 0.0, 0.0, None)


class Authentication:
    """What authentication made of a request: a refusal, or an identity and what it changed.

    `prepared` is for whoever answers requests: what is put there is there again when the same result is given for
    another request.
    """

    __slots__ = ("changes", "identity", "prepared", "refusal")

    def __init__(self, refusal: Refusal | None, identity: Identity, changes: Changes) -> None:
        self.refusal = refusal
        self.identity = identity
        self.changes = changes
        self.prepared: Any = None


class Observer(Protocol):
    """Is told each step as it is taken; see `explain`."""

    def looked(self, provider: Provider, found: Sequence[Found]) -> None: ...

    def examined(self, provider: Provider, found: Found, finding: Finding) -> None: ...


class Statistics:
    """Counters of the verified-token cache: plain integers, read when metrics are scraped."""

    __slots__ = ("_refused", "_verified", "hits", "misses")

    def __init__(self, verified: Cache[Any], refused: Cache[Any]) -> None:
        self.hits = 0
        self.misses = 0
        self._verified = verified
        self._refused = refused

    @property
    def evictions(self) -> int:
        """Entries that made room for others."""
        return self._verified.evictions + self._refused.evictions

    @property
    def entries(self) -> int:
        """Entries now."""
        return len(self._verified.entries) + len(self._refused.entries)

    @property
    def bytes(self) -> int:
        """What the entries hold, about."""
        return self._verified.bytes + self._refused.bytes


class Authenticator:
    """The rules of one workload. Immutable but for what it remembers; may be used by several threads."""

    def __init__(
        self,
        rules: Iterable[tuple[JwtRule, KeySource]],
        *,
        algorithms: Literal["all", "rsa"] = "all",
        limits: CacheLimits | None = None,
    ) -> None:
        """`rules` come in Istio's order (`istio.workload.select`), each with the source of its keys."""
        limits = limits or CacheLimits()
        self.providers = compile_providers(rules, rsa_only=algorithms == "rsa")
        self._anonymous = anonymous()
        self._verified: Cache[Any] = Cache(limits.verified_entries, limits.verified_bytes)
        self._refused: Cache[Any] = Cache(limits.refused_entries, limits.refused_bytes)
        self.statistics = Statistics(self._verified, self._refused)
        outputs = dict.fromkeys(header for provider in self.providers for header in provider.output_headers)
        self._sanitized = tuple(outputs)
        self._nobody = Authentication(
            None, self._anonymous, Changes(dict.fromkeys(outputs, ())) if outputs else NO_CHANGES
        )
        self._only = _only_header(self.providers)
        self._alone = self._only is not None and len(self.providers) == 1 and not outputs
        self._stripped = NO_CHANGES
        if self._only is not None and not self.providers[0].forwards_token:
            self._stripped = Changes({self._only[0]: NO_LINES})
        self._parameters = {name for provider in self.providers for name in provider.locations.parameters}

    @property
    def reads_headers(self) -> frozenset[str]:
        """The headers (lower case) that authentication looks at in every request."""
        names = {name for provider in self.providers for name, _ in provider.locations.headers}
        if any(provider.locations.cookies for provider in self.providers):
            names.add("cookie")
        return frozenset(names)

    def authenticate(self, request: Request, now: float) -> Authentication:
        """Who a request comes from at the time `now` (Unix seconds)."""
        only = self._only
        if (
            only is not None
            and request.method != "OPTIONS"
            and ("?" not in request.path or self._is_plain(request.path))
        ):
            header, prefix = only
            lines = request.lines(header)
            if not lines:
                return self._nobody
            if len(lines) == 1:
                line = lines[0]
                entry = self._verified.entries.get(line)
                if (
                    entry is not None
                    and entry.begin <= now < entry.end
                    and entry.source.key_set is entry.key_set
                    and (not entry.others or entry.has_current_keys())
                ):
                    entry.used = True
                    self.statistics.hits += 1
                    result: Authentication = entry.result
                    return result
                return self._first_seen(request, line, prefix, now)
        return self.work_out(request, now)

    def work_out(self, request: Request, now: float, observer: Observer | None = None) -> Authentication:
        """As `authenticate`, rule by rule, telling an observer each step."""
        if not self.providers or _is_preflight(request):
            return self._nobody
        walk = _Walk(self, request, now, observer)
        return self._result(walk, walk.tree())

    def find(self, provider: Provider, text: str, now: float) -> Finding:
        """What a token is under a rule, remembered or worked out."""
        key = (provider.name, text)
        for cache in (self._verified, self._refused):
            entry = cache.get(key, now)
            if entry is not None:
                self.statistics.hits += 1
                finding: Finding = entry.result
                return finding
        self.statistics.misses += 1
        finding = provider.examine(text, now)
        if finding.token is not None:
            # What the signature was made of is not needed again, and is most of a token's size.
            finding = finding._replace(token=finding.token._replace(header="", signed=b"", signature=b""))
        self._remember(key, finding, finding.status is None, [(provider, finding)], len(text), now)
        return finding

    def _first_seen(self, request: Request, line: str, prefix: str, now: float) -> Authentication:
        """The result for a request whose only possible token is in `line`; good results and refusals are kept by it."""
        if prefix not in line:
            return self._nobody
        entry = self._refused.entries.get(line)
        if entry is not None and entry.holds(now):
            entry.used = True
            self.statistics.hits += 1
            refused: Authentication = entry.result
            return refused
        self.statistics.misses += 1
        if self._alone:
            token = after_prefix(line, prefix) if prefix else line
            if token is None:
                return self._nobody
            result, findings = self._judge(token, now)
        else:
            walk = _Walk(self, request, now, None)
            result, findings = self._result(walk, walk.tree(remembering=False)), walk.findings
        if findings:
            self._remember(line, result, result.refusal is None, findings, len(line), now)
        return result

    def _judge(self, text: str, now: float) -> tuple[Authentication, list[tuple[Provider, Finding]]]:
        """What the walk makes of a token in the header of a rule that is alone and writes none: the usual case."""
        (provider,) = self.providers
        finding = provider.examine(text, now)
        if finding.status is not None:
            result = Authentication(Refusal.of(finding.status), self._anonymous, NO_CHANGES)
        else:
            assert finding.token is not None
            result = Authentication(None, Identity(provider.claims(finding.token)), self._stripped)
        return result, [(provider, finding)]

    def _result(self, walk: _Walk, status: Status | None) -> Authentication:
        identity = self._anonymous if walk.claims is None else Identity(walk.claims)
        return Authentication(None if status is None else Refusal.of(status), identity, walk.live.changes())

    def _remember(
        self,
        key: Hashable,
        result: Any,
        good: bool,
        findings: Sequence[tuple[Provider, Finding]],
        length: int,
        now: float,
    ) -> None:
        """Keep a result for as long as everything that it rests on stays what it is."""
        provider, (_, token, begin, end, key_set) = findings[0]
        # A finding without keys is kept with those of the moment: a change of keys drops it, which does no harm.
        source = provider.source
        payload = 0 if token is None else len(token.payload)
        others: tuple[tuple[KeySource, KeySet], ...] = ()
        for provider, finding in findings[1:] if len(findings) > 1 else ():
            begin, end = max(begin, finding.begin), min(end, finding.end)
            others += ((provider.source, finding.key_set or provider.source.key_set),)
            if finding.token is not None:
                payload = max(payload, len(finding.token.payload))
        if begin <= now < end:
            size = length + _PAYLOAD_FACTOR * payload + _RESULT_BYTES
            entry = Entry(result, begin, end, source, key_set or source.key_set, others, size)
            (self._verified if good else self._refused).store(key, entry, now)

    def _is_plain(self, path: str) -> bool:
        """Whether a path with a query certainly carries no token: no parameter's name in it, nor anything encoded."""
        if not self._parameters:
            return True
        return "%" not in path and not any(name in path for name in self._parameters)


class _Walk:
    """One request's way through the tree: the live request, and the claims of the last token that verified."""

    __slots__ = ("_authenticator", "_now", "_observer", "_remembering", "claims", "findings", "live")

    def __init__(self, authenticator: Authenticator, request: Request, now: float, observer: Observer | None) -> None:
        self._authenticator = authenticator
        self._now = now
        self._observer = observer
        self._remembering = True
        self.live = LiveRequest(request)
        self.claims: dict[str, Any] | None = None
        self.findings: list[tuple[Provider, Finding]] = []
        for header in authenticator._sanitized:
            self.live.remove(header)

    def tree(self, *, remembering: bool = True) -> Status | None:
        """None when the request passes, else the status that answers it."""
        self._remembering = remembering
        providers = self._authenticator.providers
        statuses: list[Status] = []
        for provider in providers:
            status = self._provider(provider)
            if status is None or (status is Status.MISSING and len(providers) == 1):
                return None
            statuses.append(status)
        if len(providers) > 1:
            # The last branch: each rule again, a missing token allowed; the first failure ends it.
            failures = (self._provider(provider) for provider in providers)
            failure = next((status for status in failures if status not in (None, Status.MISSING)), None)
            if failure is None:
                return None
            statuses.append(failure)
        return _answer(statuses)

    def _provider(self, provider: Provider) -> Status | None:
        """Every token at the rule's places has to be good, the last one found first; the first bad one answers."""
        for header in provider.output_headers:
            self.live.remove(header)
        tokens = provider.locations.find(self.live)
        if self._observer is not None:
            self._observer.looked(provider, tokens)
        if not tokens:
            return Status.MISSING
        for found in reversed(tokens):
            finding = _TOO_MANY if len(tokens) > MAX_TOKENS else self._finding(provider, found)
            if self._observer is not None:
                self._observer.examined(provider, found, finding)
            self.findings.append((provider, finding))
            if finding.status is not None or finding.token is None:
                return finding.status
            provider.apply(self.live, found, finding.token)
            self.claims = provider.claims(finding.token)
        return None

    def _finding(self, provider: Provider, found: Found) -> Finding:
        if self._remembering and self._observer is None:
            return self._authenticator.find(provider, found.text, self._now)
        return provider.examine(found.text, self._now)


def _answer(statuses: Iterable[Status]) -> Status:
    """Which failure a client is told: the last that is neither a missing token nor an unknown issuer, if any is."""
    answer = Status.MISSING
    for status in statuses:
        if answer is Status.MISSING or status not in (Status.MISSING, Status.ISSUER_UNKNOWN):
            answer = status
    return answer


def _only_header(providers: Sequence[Provider]) -> tuple[str, str] | None:
    """Header and prefix, when that is where all rules look for tokens (beside parameters)."""
    headers = {provider.locations.headers for provider in providers}
    if len(headers) != 1 or any(provider.locations.cookies for provider in providers):
        return None
    (places,) = headers
    if len(places) != 1 or any(places[0][0] in provider.output_headers for provider in providers):
        return None
    return places[0]


def _is_preflight(request: Request) -> bool:
    """Whether Envoy takes this for a CORS preflight, which skips authentication (`bypass_cors_preflight`)."""
    return (
        request.method == "OPTIONS"
        and any(request.lines("origin"))
        and any(request.lines("access-control-request-method"))
    )
