"""Conditions of a rule put into a draft: so that they hold, or so that they just do not.

One entry for each field and each `when` key; what they mean in the end is for the two sides to say.
"""

from __future__ import annotations

import ipaddress
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from extauthz.istio.resources import Operation, Rule, Source
from extauthz.mesh.verify import samples
from extauthz.mesh.verify.draft import Draft
from extauthz.mesh.verify.metadata import PREFIX, place_of

_BRACKETS = re.compile(r"\[([^\[\]]*)\]")

_NOT_UNICAST = ("0.0.0.0", "255.255.255.255")

_OPERATION_KEYS = {"hosts": "hosts", "methods": "methods", "paths": "paths", "ports": "destination.port"}
_SOURCE_KEYS = {
    "principals": "source.principal",
    "request_principals": "request.auth.principal",
    "namespaces": "source.namespace",
    "service_accounts": "source.serviceAccount",
    "trust_domains": "source.trustDomain",
    "ip_blocks": "source.ip",
    "remote_ip_blocks": "remote.ip",
}


def aim(rng: random.Random, draft: Draft, rule: Rule, *, spoil: bool) -> None:
    """Make a draft fit a rule: one of its sources, one of its operations, all its conditions.

    With `spoil` one of these conditions, drawn at random, is made not to hold.
    """
    wanted: list[tuple[str, Sequence[str], Sequence[str]]] = []
    if rule.sources:
        wanted.extend(_fields(rng.choice(rule.sources), _SOURCE_KEYS))
    if rule.operations:
        wanted.extend(_fields(rng.choice(rule.operations), _OPERATION_KEYS))
    wanted.extend((condition.key, condition.values, condition.not_values) for condition in rule.when)
    spoiled = rng.randrange(len(wanted)) if spoil and wanted else -1
    for index, (key, values, not_values) in enumerate(wanted):
        setter = _setter(key)
        if setter is not None:
            _set(rng, draft, setter, key, values, not_values, holds=index != spoiled)


def _fields(part: Source | Operation, keys: dict[str, str]) -> list[tuple[str, Sequence[str], Sequence[str]]]:
    found = []
    for field, key in keys.items():
        values, not_values = getattr(part, field), getattr(part, f"not_{field}")
        if values or not_values:
            found.append((key, values, not_values))
    return found


_Setter = Callable[[random.Random, Draft, str, str, bool], None]
"""Sets what a key reads: so that it matches a value (True), or so that it nearly does."""


def _set(
    rng: random.Random,
    draft: Draft,
    setter: _Setter,
    key: str,
    values: Sequence[str],
    not_values: Sequence[str],
    *,
    holds: bool,
) -> None:
    if values and (holds or not not_values or rng.random() < 0.5):
        setter(rng, draft, key, rng.choice(values), holds)
    elif not_values and (not holds or rng.random() < 0.7):
        # A negated condition holds for what is absent, too: then nothing is set.
        setter(rng, draft, key, rng.choice(not_values), not holds)


def _text(rng: random.Random, value: str, match: bool) -> str:
    return samples.matching_text(rng, value) if match else samples.missing_text(rng, value)


def _host(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    text = _text(rng, value, match).strip()
    draft.host = samples.swap_case(text) if rng.random() < 0.3 else text


def _method(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    method = _text(rng, value, match)
    draft.method = method if method.isalpha() else rng.choice(("GET", "POST", "OPTIONS", "HEAD"))


def _path(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    draft.set_path(samples.matching_path(rng, value) if match else samples.missing_path(rng, value))


def _port(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    # The PROXY protocol that carries the port knows no port 0.
    draft.port = (int(value) or 1) if match else rng.choice((1, 80, 8000, 65535))


def _destination(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    address = samples.matching_address(rng, value) if match else samples.missing_address(rng, value)
    # The PROXY protocol that carries the address takes none but unicast ones.
    if ":" not in address and not ipaddress.ip_address(address).is_multicast and address not in _NOT_UNICAST:
        draft.destination = address


def _source_ip(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    draft.source = samples.own_address(rng, value, inside=match) or draft.source


def _remote_ip(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    address = samples.matching_address(rng, value) if match else samples.missing_address(rng, value)
    before = rng.choice(("", "10.9.9.9, ", "unknown,", "192.0.2.1 , "))
    after = rng.choice(("", "", ", 10.0.0.1", ",10.0.0.1,10.0.0.2"))
    draft.forwarded_for = f"{before}{address}{after}"


def _server_name(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    name = re.sub(r"[^a-zA-Z0-9.-]", "", _text(rng, value, match)).strip(".-")
    draft.server_name = (name.upper() if rng.random() < 0.3 else name)[:60] or "x.example"


def _principal(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    name = _text(rng, value, match)
    if rng.random() < 0.1:
        draft.dns_names.append("peer.example")
    draft.add_uri(f"spiffe://{name}")


def _namespace(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    name = value.replace("*", samples.word(rng)) if match else _text(rng, value, match=False)
    draft.add_uri(f"spiffe://cluster.local/ns/{name}/sa/x")


def _service_account(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    namespace, slash, name = value.rpartition("/")
    name = name if match else _text(rng, name, match=False)
    inner = rng.choice(("", "", "pod/p/"))
    draft.add_uri(
        f"spiffe://cluster.local/ns/{namespace if slash else 'foo'}/{inner}sa/{name}{rng.choice(('', '', '/x'))}"
    )


def _trust_domain(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    draft.add_uri(f"spiffe://{_text(rng, value, match)}/ns/foo/sa/bar")


def _request_principal(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    issuer, _, subject = value.rpartition("/")
    draft.set_claim(["sub"], _text(rng, subject, match))
    if issuer and "*" not in issuer:
        draft.set_claim(["iss"], issuer)


def _claim_of(name: str) -> _Setter:
    return lambda rng, draft, key, value, match: _set_claim(rng, draft, [name], value, match)


def _claim(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    brackets = key.removeprefix("request.auth.claims")
    path = _BRACKETS.findall(brackets) if re.fullmatch(r"(?:\[[^\[\]]*\])+", brackets) else [brackets[1:-1]]
    _set_claim(rng, draft, path, value, match)


def _set_claim(rng: random.Random, draft: Draft, path: Sequence[str], value: str, match: bool) -> None:
    text = _text(rng, value, match)
    forms: tuple[Any, ...] = (
        text,
        [text],
        ["other", text],
        [5, text],
        f"other {text}",
        f" {text}  ",
        {"x": text},
        [[text]],
        5,
        True,
        [],
    )
    draft.set_claim(path, rng.choice(forms[:6] if match else forms))


def _header(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    name = key.removeprefix("request.headers")[1:-1]
    text = _text(rng, value, match)
    if name.lower() in ("host", ":authority"):
        draft.host = text.strip()
    elif not name.startswith(":") and re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        draft.set_line(name, text)
        if rng.random() < 0.3:
            draft.lines.insert(rng.randint(0, len(draft.lines)), (name.upper(), rng.choice(("", "w", "a,b"))))


def _metadata(rng: random.Random, draft: Draft, key: str, value: str, match: bool) -> None:
    listed = value.startswith("[") and value.endswith("]")
    text = _text(rng, value.strip("[]") if listed else value, match)
    forms: tuple[Any, ...] = (text, [text], ["other", text], [5, text], 5, True, None, {"x": text}, [[text]], [])
    matching = forms[1:4] if listed else forms[:1]
    draft.metadata[place_of(key)] = json.dumps(rng.choice(matching if match and rng.random() < 0.8 else forms))


_SETTERS: dict[str, _Setter] = {
    "hosts": _host,
    "methods": _method,
    "paths": _path,
    "destination.port": _port,
    "destination.ip": _destination,
    "source.ip": _source_ip,
    "remote.ip": _remote_ip,
    "connection.sni": _server_name,
    "source.principal": _principal,
    "source.namespace": _namespace,
    "source.serviceAccount": _service_account,
    "source.trustDomain": _trust_domain,
    "request.auth.principal": _request_principal,
    "request.auth.audiences": _claim_of("aud"),
    "request.auth.presenter": _claim_of("azp"),
}


def _setter(key: str) -> _Setter | None:
    if key.startswith(PREFIX):
        return _metadata
    if key.startswith("request.headers["):
        return _header
    if key.startswith("request.auth.claims["):
        return _claim
    return _SETTERS.get(key)
