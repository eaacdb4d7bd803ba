"""Texts, paths and addresses that a policy's value matches, and such as it just does not match.

Best effort: what is drawn as matching need not match (a prefix may be cut by another rule), since the verdict is never
taken from here. The point is to land close to both sides of each line.
"""

from __future__ import annotations

import ipaddress
import random
import re

_WORDS = ("w", "ab", "x-y", "A", "0", "~", "a.b", "a*b", "*")
_SEGMENTS = ("x", "ab", "x=y", "a%2Fb", "a;b", "~", "%41", "a:b", "1", "a%20b", "[x]", "*", "a@b,c")
_TEMPLATE = re.compile(r"(\{\*\*?\})")


def word(rng: random.Random) -> str:
    """A short text."""
    return rng.choice(_WORDS)


def swap_case(text: str) -> str:
    """Text with upper and lower case exchanged, of ASCII letters only: wire text has to stay within its bytes."""
    return "".join(character.swapcase() if character.isascii() else character for character in text)


def matching_text(rng: random.Random, value: str) -> str:
    """A text that `*`, `*x`, `x*` or an exact value matches."""
    if value == "*":
        return word(rng)
    if value.startswith("*"):
        return rng.choice(("", word(rng), value[1:])) + value[1:]
    if value.endswith("*"):
        return value[:-1] + rng.choice(("", word(rng), value[:-1]))
    return value


def missing_text(rng: random.Random, value: str) -> str:
    """A text that nearly matches a value."""
    bare = value.strip("*")
    return rng.choice(
        (
            "",
            value,
            bare[:-1],
            bare[1:],
            bare + "x",
            "x" + bare,
            swap_case(bare),
            f"{bare}/",
            f"{bare},{bare}",
            f" {bare}",
            f"{bare}\x0a",
            word(rng),
        )
    )


def matching_path(rng: random.Random, value: str) -> str:
    """A path (without query) that a value of `paths` matches."""
    if _TEMPLATE.search(value):
        return "".join(_variable(rng, part) for part in _TEMPLATE.split(value))
    path = matching_text(rng, value)
    return path if path.startswith("/") else f"/{path}"


def _variable(rng: random.Random, part: str) -> str:
    if part == "{*}":
        return rng.choice(_SEGMENTS)
    if part == "{**}":
        return rng.choice(("", "/", *_SEGMENTS, "a/b", "a//b", "a/"))
    return part


def missing_path(rng: random.Random, value: str) -> str:
    """A path that a value of `paths` nearly matches."""
    path = matching_path(rng, value)
    cut = path[:-1] if len(path) > 1 else "/x"
    return rng.choice(
        (cut, f"{path}/", f"{path}x", swap_case(path), f"/{path}", f"{path};a", path.replace("/", "//", 1))
    )


def matching_address(rng: random.Random, value: str) -> str:
    """An address inside a block; the address itself for one alone."""
    network = ipaddress.ip_network(value, strict=False)
    offset = rng.choice((0, network.num_addresses - 1, rng.randrange(network.num_addresses)))
    return str(network[offset])


def missing_address(rng: random.Random, value: str) -> str:
    """An address just outside a block, or of the other family."""
    network = ipaddress.ip_network(value, strict=False)
    first, last = int(network[0]), int(network[-1])
    family = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
    outside = [family(number) for number in (first - 1, last + 1) if 0 <= number < 2**network.max_prefixlen]
    mapped = f"::ffff:{network[0]}" if network.version == 4 else "192.0.2.1"
    return rng.choice([*map(str, outside), mapped])


def own_address(rng: random.Random, value: str, *, inside: bool) -> str | None:
    """An address of this machine's loopback inside (or outside) a block; None when there is none to be found."""
    network = ipaddress.ip_network(value, strict=False)
    candidates = ["127.0.0.1", "127.0.0.2", "127.255.0.9", "::1"]
    if network.version == 4 and network.overlaps(ipaddress.ip_network("127.0.0.0/8")):
        candidates.append(matching_address(rng, value))
    usable = [
        candidate
        for candidate in candidates
        if _loopback(candidate) and (ipaddress.ip_address(candidate) in network) is inside
    ]
    return rng.choice(usable) if usable else None


def _loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    # The network's own first and last address cannot be bound to.
    return address.is_loopback and text not in ("127.0.0.0", "127.255.255.255")
