"""What real and hostile clients do to a request beside its purpose: odd paths, queries, hosts, repeated headers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from extauthz.mesh.verify.draft import Draft
from extauthz.mesh.verify.samples import swap_case


def disturb(rng: random.Random, draft: Draft) -> None:
    """Change a draft in one of these ways."""
    rng.choice(_DISTURBANCES)(rng, draft)


def _odd_path(rng: random.Random, draft: Draft) -> None:
    forms: tuple[Callable[[str], str], ...] = (
        lambda path: f"/{path}",
        lambda path: f"{path}/",
        lambda path: f"/.{path}",
        lambda path: f"/x/..{path}",
        lambda path: f"{path}/.",
        lambda path: f"{path}/..",
        lambda path: f"/x/%2e%2e{path}",
        lambda path: f"/x/..;a{path}",
        lambda path: f"{path};a=b",
        lambda path: path.replace("/", "\\"),
        lambda path: path.replace("/", "//"),
        lambda path: path.replace("/", "/./"),
        lambda path: "".join(f"%{ord(character):02X}" if character.isalpha() else character for character in path),
        lambda path: path.replace("a", "%61"),
        lambda path: path[:1] + path[1:].replace("/", "%2f"),
        lambda path: f"{path}%00",
        lambda path: f"{path}#f",
        lambda path: f"{path}%",
        lambda path: f"{path}%zz",
        lambda path: f'{path}|"<>^`{{}}',
        lambda path: f"{path}\x80",
        lambda path: f"http://other.example{path}",
        lambda path: f"HTTP://other.example:80{path}",
        lambda path: path + "x" * rng.choice((10, 300, 3000)),
        swap_case,
        lambda path: "",
        lambda path: "*",
    )
    draft.path = rng.choice(forms)(draft.path)


def _odd_query(rng: random.Random, draft: Draft) -> None:
    draft.params.insert(
        rng.randint(0, len(draft.params)),
        rng.choice(
            (
                "", "a", "a=", "=b", "a=b", "b=a", "a=%20", "a=+", "%61=1", "a=%0a", "a=%09", "a=%7f", "a=%ff", "a=%00",
                "a=b=c", "a=%", "a=%zz", "A=1", "a=1&a=0", "a=/../b", "a=\"<>", "access_token", "access_token=",
                "access_token=x", "a=\\", "a[]=1", "z", "a?b=c", "a=%C3%A9", "&", ";a=b",
            )
        ),
    )  # fmt: skip


def _odd_host(rng: random.Random, draft: Draft) -> None:
    draft.host = rng.choice(("", None, "x", "HTTPBIN.foo:8000", "httpbin.foo", "[::1]:80", "a.b.", "a_b", "10.0.0.1"))


def _odd_method(rng: random.Random, draft: Draft) -> None:
    draft.method = rng.choice(("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "get", "TRACE", "QUERY"))


def _grpc(rng: random.Random, draft: Draft) -> None:
    kind = rng.choice(("application/grpc", "application/grpc+proto", "application/grpc-web", "application/grpcx", ""))
    draft.set_line("content-type", kind)


def _preflight(rng: random.Random, draft: Draft) -> None:
    draft.method = "OPTIONS"
    draft.set_line("origin", rng.choice(("http://o.example", "null", "")))
    draft.set_line("access-control-request-method", rng.choice(("PUT", "GET", "")))


def _forwarded(rng: random.Random, draft: Draft) -> None:
    draft.forwarded_for = rng.choice(
        (
            "", ",", "192.0.2.7", "10.1.2.3", "192.0.2.7,10.0.0.1", "unknown", "192.0.2.7:80", "[2001:db8::1]",
            "2001:db8::1", "::ffff:192.0.2.7", " 192.0.2.7 ", "192.0.2.7, ", "192.0.2.7,,", "127.0.0.1", "1.2.3",
            "192.000.002.007", "2001:db8::1%eth0", "a,b,c,192.0.2.7", "0x7f.1", "fe80::1", "::", "010.0.0.1",
        )
    )  # fmt: skip


def _proto(rng: random.Random, draft: Draft) -> None:
    draft.set_line("x-forwarded-proto", rng.choice(("https", "HTTPS", "http", "wss", "ftp")))


def _spoof(rng: random.Random, draft: Draft) -> None:
    name = rng.choice(("x-sub", "x-payload", "x-claim", "x-roles", "x-h", "x-envoy-original-path", "x-user"))
    draft.lines.append((name, rng.choice(("spoofed", "", "/orig?q", "a,b"))))


def _repeat(rng: random.Random, draft: Draft) -> None:
    if draft.lines:
        name, value = rng.choice(draft.lines)
        draft.lines.insert(
            rng.randint(0, len(draft.lines)), (rng.choice((name, name.upper())), rng.choice((value, "")))
        )


def _odd_value(rng: random.Random, draft: Draft) -> None:
    if draft.lines:
        index = rng.randrange(len(draft.lines))
        name, value = draft.lines[index]
        forms = (f"  {value}", f"{value} ", f"x {value}", f"{value}\xff", f"{value},", swap_case(value), f"{value}\t")
        draft.lines[index] = (name, rng.choice(forms))


def _odd_cookie(rng: random.Random, draft: Draft) -> None:
    draft.cookies.insert(
        rng.randint(0, len(draft.cookies)),
        rng.choice(("a=1", "", "a", "=b", ' a="b"', "session=x", "session=", "a=1;b=2", "\ta=1", 'tk="x', "é=1")),
    )


def _joined_header(rng: random.Random, draft: Draft) -> None:
    name = rng.choice(("accept", "via", "user-agent", "cookie", "te", "referer", "x-custom", "cache-control", "origin"))
    for _ in range(rng.choice((1, 2, 3))):
        draft.lines.append((name, rng.choice(("", "a", "b", "a,b", "trailers", "http://a/b", "v"))))


_DISTURBANCES: Sequence[Callable[[random.Random, Draft], None]] = (
    _odd_path, _odd_path, _odd_path, _odd_query, _odd_query, _odd_host, _odd_method, _grpc, _preflight, _forwarded,
    _proto, _spoof, _repeat, _odd_value, _odd_cookie, _joined_header,
)  # fmt: skip
