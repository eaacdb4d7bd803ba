"""The request that is measured: the story's policies, a valid token, and the Check call that Envoy sends about it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from extauthz.authorizer import Authorizer, AuthorizerOptions
from extauthz.checkapi.build import Connection, check_request
from extauthz.istio.load import load
from extauthz.istio.workload import Workload
from extauthz.mesh.demo import AUTHORIZATION_POLICY, ISSUER, REQUEST_AUTHENTICATION, WORKLOAD
from extauthz.minting import SigningKey, key_set

BROWSER_HEADERS = (
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-language", "en-US,en;q=0.5"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("cookie", "session=0123456789abcdef"),
    ("x-request-id", "6cc2ba36-1f3c-4f7e-9d6a-4f4f8f6f4a10"),
    ("x-forwarded-proto", "http"),
)


@dataclass(frozen=True)
class Measured:
    """A key, the policies that trust it, and requests under them."""

    key: SigningKey
    policies: str

    @classmethod
    def make(cls, algorithm: str = "RS256") -> Measured:
        key = SigningKey.generate(algorithm, "bench")
        jwks = json.dumps(key_set(key))
        return cls(key, f"{REQUEST_AUTHENTICATION.format(jwks=jwks)}---\n{AUTHORIZATION_POLICY}")

    def token(self, subject: str = "user", **claims: object) -> str:
        """A token that is valid until 2100."""
        return self.key.token({"iss": ISSUER, "sub": subject, "exp": 4_102_444_800, **claims})

    def authorizer(self) -> Authorizer:
        """The policies, compiled for the story's workload."""
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "policies.yaml")
            file.write_text(self.policies)
            return Authorizer(load([str(file)]).resources, AuthorizerOptions(workload=Workload.parse(WORKLOAD)))

    @staticmethod
    def message(token: str = "", path: str = "/api/v1/products/0") -> bytes:
        """A Check call about a browser's request, about 1 KB with a token."""
        headers = [*BROWSER_HEADERS, *([("authorization", f"Bearer {token}")] if token else [])]
        message = check_request(
            "GET", path, headers, host="bookinfo.example", connection=Connection("192.0.2.7", 4711, "192.0.2.1", 8080)
        )
        assert message is not None
        return message
