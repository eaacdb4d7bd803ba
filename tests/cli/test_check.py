"""`extauthz check`: what it explains, prints and ends with."""

import json
from typing import NamedTuple

import pytest

from extauthz.broken_tokens import BROKEN_TOKENS, broken_token
from extauthz.cli import main
from extauthz.mesh.demo import AUTHORIZATION_POLICY, ISSUER, REQUEST_AUTHENTICATION, WORKLOAD
from extauthz.minting import SigningKey, key_set

KEY = SigningKey.generate("ES256", "k")
CLAIMS = {"iss": ISSUER, "sub": "u"}
TOKEN = KEY.token(CLAIMS)


@pytest.fixture
def policies(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(f"{REQUEST_AUTHENTICATION.format(jwks=json.dumps(key_set(KEY)))}---\n{AUTHORIZATION_POLICY}")
    return str(file)


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def check(policies, capsys):
    """Runs the command in this process: a fresh one for each of these would take most of the time."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["check", "--policy", policies, "--workload", WORKLOAD, *arguments])
        return Done(ended.value.code, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["/productpage"], 0, "ALLOWED"),
        (["http://h/api"], 1, "DENIED   403 RBAC: access denied  (rbac_access_denied_matched_policy["),
        (["http://h/api", "-H", f"authorization: Bearer {TOKEN}"], 0, "upstream without authorization"),
        ([f"http://h/api?access_token={TOKEN}&a=1"], 0, "upstream path /api?a=1"),
        (["/productpage", "-H", "authorization: Bearer x"], 1, "FAIL form: Jwt is not in the form of"),
        (["/a/../productpage"], 0, "ALLOWED"),
        (["/a#b"], 1, "400"),
    ],
)
def test_a_request_is_decided_and_explained(check, arguments, status, said):
    done = check(*arguments)
    assert done.returncode == status
    assert said in done.stdout
    assert not done.stderr


@pytest.mark.parametrize("kind", [kind for kind in BROKEN_TOKENS if kind not in ("audience", "sub-missing")])
def test_each_broken_token_fails_one_named_check(check, kind):
    token = broken_token(kind, KEY, CLAIMS)
    done = check("--json", "/productpage", "-H", f"authorization: Bearer {token}")
    assert done.returncode == 1
    explained = json.loads(done.stdout)
    checks = explained["authentication"]["tokens"][0]["checks"]
    assert [one["passed"] for one in checks] == [True] * (len(checks) - 1) + [False]
    assert checks[-1]["detail"].startswith(explained["body"])
    assert explained["status"] == 401


def test_tokens_are_shown_only_when_asked_for(check):
    arguments = ("/x", "-H", f"authorization: Bearer {TOKEN}")
    assert TOKEN not in check(*arguments).stdout
    assert TOKEN.rpartition(".")[2] not in check("--json", *arguments).stdout
    assert TOKEN in check("--show-token", *arguments).stdout


def test_a_denial_names_the_policy_and_what_it_saw(check):
    explained = json.loads(check("--json", "http://h/api").stdout)
    decided = explained["policies"]["decided"]
    assert decided["name"] == "ns[istio-system]-policy[test-exclude]-rule[0]"
    assert decided["file"].endswith("p.yaml")
    paths = decided["conditions"][-1]
    assert (paths["wanted"], paths["seen"], paths["negated"], paths["holds"]) == (
        ["/productpage"],
        ["/api"],
        True,
        True,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ftp://h/"], "write http://host/path"),
        (["/x", "-H", "nonsense"], "write 'NAME: VALUE'"),
        (["/x", "--workload", "a b"], "write NAMESPACE/key=value"),
        (["/x", "--jwt-algorithms", "none"], "use all or rsa"),
        (["/x", "--policy", "/nowhere"], "No such file"),
    ],
)
def test_wrong_usage_is_one_clear_line(check, arguments, said):
    done = check(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
