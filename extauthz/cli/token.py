"""`extauthz token`: mint a test token, good or broken on purpose."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from extauthz.broken_tokens import BROKEN_TOKENS, broken_token
from extauthz.errors import UsageError
from extauthz.minting import ALGORITHMS, SigningKey, key_set


def command(
    issuer: Annotated[str, typer.Option(help="Claim iss.")] = "testing@secure.istio.io",
    subject: Annotated[str, typer.Option(help="Claim sub.")] = "testing@secure.istio.io",
    audience: Annotated[list[str], typer.Option(help="Claim aud; repeatable.")] = [],  # noqa: B006
    algorithm: Annotated[str, typer.Option("--alg", help=f"One of {', '.join(ALGORITHMS)}.")] = "RS256",
    kid: Annotated[str, typer.Option(help="Key id in header and key set; empty for none.")] = "test-key",
    expires_in: Annotated[
        int, typer.Option(help="Seconds from now until exp; 0 leaves exp out, negative expired.")
    ] = 3600,
    claim: Annotated[list[str], typer.Option(metavar="NAME=VALUE", help="A claim; VALUE is JSON or text.")] = [],  # noqa: B006
    header: Annotated[list[str], typer.Option(metavar="NAME=VALUE", help="A header member, likewise.")] = [],  # noqa: B006
    broken: Annotated[
        str, typer.Option(metavar="KIND", help="Break it on purpose; --broken list shows the kinds.")
    ] = "",
    key_file: Annotated[
        Path | None, typer.Option("--key", help="Private key (PEM) or shared secret to sign with.")
    ] = None,
    key_out: Annotated[Path | None, typer.Option(help="Save the new private key here, readable by you only.")] = None,
    jwks_out: Annotated[Path | None, typer.Option(help="Save the key set that verifies the token here.")] = None,
) -> None:
    """Mint a test token and the key set that verifies it.

    The token is printed on stdout; the key set too, after it, unless --jwks-out says where to save it.
    """
    if broken == "list":
        for kind, (meaning, _) in BROKEN_TOKENS.items():
            print(f"{kind:22} {meaning}")
        return
    key = _key(algorithm, kid, key_file)
    claims = _claims(issuer, subject, audience, expires_in) | dict(_member("--claim", text) for text in claim)
    if broken:
        if broken not in BROKEN_TOKENS:
            raise UsageError(f"--broken {broken!r}: use one of {', '.join(BROKEN_TOKENS)}")
        token = broken_token(broken, key, claims)
    else:
        token = key.token(claims, header=dict(_member("--header", text) for text in header))
    if key_out is not None:
        _save(key_out, key.private_text(), 0o600)
    key_set_text = json.dumps(key_set(key), indent=2)
    if jwks_out is not None:
        _save(jwks_out, key_set_text + "\n", 0o644)
    print(token)
    if jwks_out is None:
        print(key_set_text)


def _claims(issuer: str, subject: str, audience: list[str], expires_in: int) -> dict[str, Any]:
    now = int(time.time())
    claims: dict[str, Any] = {"iss": issuer, "sub": subject, "iat": now}
    if audience:
        claims["aud"] = audience[0] if len(audience) == 1 else audience
    if expires_in:
        claims["exp"] = now + expires_in
    return claims


def _member(option: str, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"{option} {text!r}: write NAME=VALUE, where VALUE is JSON or plain text")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _key(algorithm: str, kid: str, file: Path | None) -> SigningKey:
    try:
        if file is None:
            return SigningKey.generate(algorithm, kid)
        return SigningKey.from_text(file.read_text(), algorithm, kid)
    except OSError as error:
        raise UsageError(f"--key {file}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--key {file}: {error}" if file else f"--alg: {error}") from None


def _save(path: Path, text: str, mode: int) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
