"""Hostile policies: each text is loaded or refused, and never loaded as something that lets in more than was written.

What is asked of a text depends on how it was made:

- broken by construction (a field of a `spec` misspelt, a value of another type, an action that there is not): it must
  be refused, as a field that is passed over is a condition that is dropped;
- the same documents written otherwise (JSON, flow style, other order of members, comments, blank lines): they must load
  and decide a set of requests as the plain ones do;
- anything else (bytes changed, YAML's own tricks, values of odd shapes): it may load or be refused, and what was loaded
  must answer the same requests. A changed byte can make a policy that means something else, so that nothing can be said
  about its answers.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from hostile_families import ALLOWED, DENIED, REFUSED
from hostile_requests import sample_messages
from hostile_subject import Check, Subject, allows, authorizer
from hostile_wire import mutated_bytes

from extauthz.errors import PolicyError, UsageError
from extauthz.mesh.verify.random_policies import random_policies

Load = Callable[[str], Check]
ANY, MUST_REFUSE, MUST_AGREE = "any", "must be refused", "must decide as before"
ODD = (
    None, True, -1, 2**70, 1.5, float("nan"), "", " ", "*", "**", "*" * 5000, "/" + "{*}/" * 500, "{**}", "{", "a\0b",
    "\u202e", "\ud7ff", "é" * 1000, [], [None], [[]], {}, {"": ""}, "0.0.0.0/0", "::/129", "1" * 5000, "/%zz", "\n",
    "request.headers[", "request.auth.claims[" + "[a]" * 200, "source.ip", "https://x:99999", "file:///etc/passwd",
)  # fmt: skip
FREE = ("matchLabels", "labels", "annotations")
"""Maps whose members have the names that their writers like."""


class _Dumper(yaml.SafeDumper):
    """Quotes what other readers of YAML do not take for text, as `n` and `1e3`."""

    def represent_text(self, text: str) -> yaml.Node:
        plain = re.fullmatch(r"[A-Za-z/][\w/.-]{2,}", text)
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _Dumper.represent_text)


@dataclass(frozen=True, slots=True)
class PolicyCase:
    """A text, what is asked of it, and the number of the policies that it was made from."""

    text: str
    asked: str
    base: int


class Policies:
    """Hostile policies (see `hostile_families.Family`)."""

    name = "policies"

    def __init__(self, subject: Subject, seed: int, load: Load | None = None) -> None:
        rng = random.Random(seed)
        self._load = load or (lambda text: authorizer(text).check)
        self._bases: list[tuple[list[Any], tuple[bool, ...]]] = []
        self._messages = sample_messages(rng, subject)
        for text in (subject.policies, *_loadable(rng, 12)):
            documents = list(yaml.safe_load_all(text))
            plain = yaml.dump_all(documents, Dumper=_Dumper)
            self._bases.append((documents, self._decisions(authorizer(plain).check)))
        self._seen: tuple[bool, ...] = ()

    def make(self, rng: random.Random) -> PolicyCase:
        base = rng.randrange(len(self._bases)) if rng.random() < 0.6 else 0
        documents = json.loads(json.dumps(self._bases[base][0]))
        kind = rng.random()
        if kind < 0.3:
            _break(rng, documents)
            return PolicyCase(_written(rng, documents), MUST_REFUSE, base)
        if kind < 0.45:
            return PolicyCase(_written(rng, documents), MUST_AGREE, base)
        if kind < 0.6:
            holder, key = rng.choice([*_places(documents)])
            holder[key] = rng.choice(ODD)
            return PolicyCase(_written(rng, documents), ANY, base)
        if kind < 0.65:
            return PolicyCase(_tricky(rng, _written(rng, documents)), ANY, base)
        text = mutated_bytes(rng, _written(rng, documents).encode()).decode("latin-1")
        return PolicyCase(text, ANY, base)

    def run(self, case: PolicyCase) -> str:
        try:
            check = self._load(case.text)
        except (PolicyError, UsageError):
            return REFUSED
        self._seen = self._decisions(check)
        return ALLOWED if any(self._seen) else DENIED

    def fault(self, case: PolicyCase, outcome: str) -> str:
        if case.asked == MUST_REFUSE and outcome != REFUSED:
            return "loaded, though a field is none of Istio's"
        if case.asked == MUST_AGREE and (outcome == REFUSED or self._seen != self._bases[case.base][1]):
            return "not the answers of the same policies written otherwise"
        return ""

    def stored(self, case: PolicyCase) -> bytes:
        return case.text.encode("utf-8", "surrogatepass")

    def _decisions(self, check: Check) -> tuple[bool, ...]:
        return tuple(allows(check(message)) for message in self._messages)


def _loadable(rng: random.Random, count: int) -> Iterator[str]:
    """Random policies that load (some are drawn with what Istio refuses)."""
    while count:
        text = random_policies(rng, "drawn").text
        try:
            authorizer(text)
        except PolicyError:
            continue
        count -= 1
        yield text


def _written(rng: random.Random, documents: list[Any]) -> str:
    """The documents in one of the ways in which people and programs write them."""
    kind = rng.randrange(5)
    if kind == 0:
        return "\n---\n".join(json.dumps(document, indent=rng.choice((None, 1))) for document in documents)
    if kind == 1:
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    text: str = yaml.dump_all(
        documents,
        Dumper=_Dumper,
        default_flow_style=kind == 2,
        sort_keys=rng.random() < 0.5,
        indent=rng.choice((2, 4)),
        width=rng.choice((20, 10_000)),
        allow_unicode=rng.random() < 0.5,
    )
    if kind == 3:
        text = f"# a comment\n\n---\n{text}\n---\n# nothing\n"
    return text


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every member of every map and list, as where it is and its key there, maps of free names left out."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield value, key
        if key not in FREE:
            yield from _places(member)


def _break(rng: random.Random, documents: list[Any]) -> None:
    """Make one thing in a spec what it cannot be."""
    spec = rng.choice(documents)["spec"]
    places = [*_places(spec)]
    if "action" in spec and rng.random() < 0.1:
        spec["action"] = rng.choice(("allow", "PERMIT", "ALLOW ", "Deny", "", ["ALLOW"], 17))
        if spec["action"] != "":
            return
    named = [(holder, key) for holder, key in places if isinstance(holder, dict)]
    holder, key = rng.choice(named)
    if rng.random() < 0.6:
        wrong = rng.choice(
            (key + "s", "x" + key, key[:-1] + "_", key.upper() + "Z", key + " ", "not" + key, key[1:] + "q")
        )
        holder[wrong] = holder.pop(key)
    else:
        holder[key] = 7 if isinstance(holder[key], dict) else {"no": "field"}


def _tricky(rng: random.Random, text: str) -> str:
    """What YAML allows and nobody should send."""
    depth = rng.choice((10, 100, 1000, 20_000))
    laughs = "\n".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" if n else "a0: &a0 [x]" for n in range(depth % 40)
    )
    return rng.choice(
        (
            "x: " + "[" * depth + "]" * depth,
            "x: " + '{"a":' * depth,
            "- " * depth + "x",
            "\n".join(" " * level + "a:" for level in range(min(depth, 1000))),
            laughs,
            "a: &a [*a]\n---\n" + text,
            "x: !!python/object/apply:os._exit [3]\n---\n" + text,
            "%YAML 9.9\n---\n" + text,
            "<<: &x {kind: AuthorizationPolicy}\n" + text,
            "\t" + text,
            "\ufeff" + text,
            text.replace("kind:", "kind: &k", 1) + "\n---\n*k",
            text.replace("spec:", "spec: {}\nspec:", 1),
            text + "\n---\n" + text,
            text + "\n..." * depth,
            "---\n" * depth + text,
            "? " * depth + "x",
            "#" * depth + "\n" + text,
            '"' + "\\u0041" * depth,
            "& * ! | > % @ `",
            "x: |" + "9" * depth,
            "x: 1" + "0" * depth,
            "x: 1:" + "59:" * depth + "0",
            "kind: AuthorizationPolicy\n" * 2,
            text.replace("\n", "\r"),
            text.replace("\n", "\u2028"),
            text.encode("utf-16").decode("latin-1"),
        )
    )
