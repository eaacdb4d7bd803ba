"""Key sets that are elsewhere, as a served process shows them: readiness, answers, metrics, reloads."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extauthz.minting import SigningKey, key_set

Start = Callable[..., Any]


# Patience with a busy machine; the default lets a server begin without its keys after a short while.
WAIT = ("--jwks-wait", "60")


def policies(path: Path, url: str, comment: str = "", timeout: str = "60s") -> Path:
    new = path.with_suffix(".new")
    new.write_text(
        f"""# {comment}
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens, namespace: shop}}
spec:
  jwtRules:
  - issuer: issuer
    jwksUri: {url}
    timeout: {timeout}
"""
    )
    # In one step: a server may look at any moment.
    return new.replace(path)


def test_a_remote_key_set_is_there_when_it_says_ready(serve: Start, keys: Any, story: Any, tmp_path: Path) -> None:
    server = serve("--policy", policies(tmp_path / "p.yaml", keys.url), *WAIT)
    assert server.check("/", story.token) == 200
    assert server.check("/") == 200
    assert server.page("/readyz") == {"ready": True, "missing": []}
    assert server.metric("jwks_keys", uri=keys.url) == 1
    assert server.metric("jwks_fetch_total", uri=keys.url, result="success") == 1
    assert 0 <= server.metric("jwks_age_seconds", uri=keys.url) < 30
    (shown,) = server.page("/policies")["key_sets"]
    assert (shown["uri"], shown["key_ids"], shown["available"]) == (keys.url, ["key-1"], True)
    assert story.key.jwk()["n"] not in str(shown)


def test_while_a_key_set_is_missing_only_its_tokens_are_refused(
    serve: Start, keys: Any, story: Any, tmp_path: Path, transport_name: str
) -> None:
    keys.status = 503
    server = serve(
        *("--policy", policies(tmp_path / "p.yaml", keys.url), "--jwks-wait", "0.2"),
        *("--jwks-refresh", "0.3", "--jwks-refresh-min", "0.1", "--transport", transport_name),
    )
    assert server.check("/") == 200
    assert server.check("/", story.token) == 401
    ready = server.page("/readyz")
    assert ready["ready"]
    assert ready["missing"][0].startswith(f"key set {keys.url}: ")
    keys.status = 200
    server.wait_until(lambda: server.check("/", story.token) == 200)
    assert server.page("/readyz")["missing"] == []


def test_a_reload_keeps_the_key_sets_that_are_still_wanted(serve: Start, keys: Any, story: Any, tmp_path: Path) -> None:
    path = policies(tmp_path / "p.yaml", keys.url)
    server = serve("--policy", path, "--admin-reload", *WAIT)
    asked = keys.asked
    policies(path, keys.url, "changed")
    server.wait_until(lambda: server.metric("policy_reload_total", result="success") >= 1)
    assert server.admin("/reload", "POST")[0] == 200
    assert server.check("/", story.token) == 200
    assert keys.asked == asked
    policies(path, keys.url + "?other")
    server.wait_until(lambda: server.metric("jwks_keys", uri=keys.url + "?other") == 1)
    # The old one is there until the policies that use it are replaced.
    server.wait_until(lambda: server.metric("jwks_fetch_total", uri=keys.url) == 0)
    assert server.check("/", story.token) == 200


def test_a_new_key_set_is_fetched_for_its_first_token_and_judges_remembered_tokens_anew(
    serve: Start, keys: Any, story: Any, tmp_path: Path, transport_name: str
) -> None:
    server = serve("--policy", policies(tmp_path / "p.yaml", keys.url), *WAIT, "--transport", transport_name)
    old = story.token
    assert [server.check("/", old) for _ in range(3)] == [200] * 3
    new = SigningKey.generate("ES256", "key-2")
    claims = {"iss": "issuer", "sub": "someone", "exp": int(time.time()) + 3600}
    token = new.token(claims)
    keys.body = json.dumps(key_set(new))
    # Answered at once from what is there, and the reason to look.
    assert server.check("/", token) == 401
    server.wait_until(lambda: server.check("/", token) == 200)
    assert server.check("/", old) == 401
    assert keys.asked == 2
    for number in range(20):
        assert server.check("/", SigningKey.generate("ES256", f"unknown-{number}").token(claims)) == 401
    time.sleep(0.3)
    assert keys.asked == 2


def test_credentials_in_a_url_are_shown_nowhere(serve: Start, keys: Any, story: Any, tmp_path: Path) -> None:
    url = keys.url.replace("http://", "http://me:hunter2@") + "?api_key=sesame"
    server = serve("--policy", policies(tmp_path / "p.yaml", url), "--jwks-cache-dir", tmp_path / "sets", *WAIT)
    assert server.check("/", story.token) == 200
    shown = "".join(server.admin(path)[1] for path in ("/policies", "/metrics", "/readyz"))
    # The keys are used before they are saved.
    server.wait_until(lambda: [file.suffix for file in (tmp_path / "sets").iterdir()] == [".json"])
    (kept,) = (tmp_path / "sets").iterdir()
    server.terminate()
    everything = shown + kept.read_text() + server.log
    assert f"{keys.url}?api_key=***" in everything
    assert not [secret for secret in ("hunter2", "sesame") if secret in everything]


def test_workers_have_their_key_sets_too(serve: Start, keys: Any, story: Any, tmp_path: Path) -> None:
    server = serve(
        *("--policy", policies(tmp_path / "p.yaml", keys.url), "--workers", "2", *WAIT),
        *("--listen", f"unix:{tmp_path}/{{worker}}.sock"),
    )
    for address in server.addresses:
        assert server.check("/", story.token, address=address) == 200
    server.wait_until(lambda: server.metric("jwks_fetch_total", uri=keys.url, result="success") == 2)
    assert server.metric("jwks_keys", uri=keys.url) == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [(("--jwks-ca", "/nowhere.pem"), "/nowhere.pem"), (("--resolve", "nonsense"), "--resolve 'nonsense'")],
)
def test_options_of_fetching_that_cannot_be_used_end_it(
    serve: Start, keys: Any, tmp_path: Path, options: tuple[str, ...], complaint: str
) -> None:
    server = serve("--policy", policies(tmp_path / "p.yaml", keys.url), *options, ready=False)
    assert server.ended() == 2
    assert complaint in server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize("kind", ["port closed", "unknown host", "never answers"])
def test_an_endpoint_that_is_down_at_the_start_holds_up_nothing(
    serve: Start, story: Any, tmp_path: Path, kind: str, closed_port: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = closed_port if kind == "port closed" else silent.getsockname()[1]
        url = f"http://nowhere.invalid:{port}/keys" if kind == "unknown host" else f"http://127.0.0.1:{port}/keys"
        began = time.monotonic()
        server = serve("--policy", policies(tmp_path / "p.yaml", url, timeout="600s"), "--jwks-wait", "0.5")
        assert time.monotonic() - began < 60
        assert server.check("/") == 200
        assert server.check("/", story.token) == 401
        assert server.page("/readyz")["missing"][0].startswith(f"key set {url}")
        assert server.metric("jwks_fetch_total", uri=url, result="success") == 0
