"""`extauthz validate`: every error and warning with its place, and the exit status."""

import datetime
import json
import subprocess
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from extauthz.mesh.demo import AUTHORIZATION_POLICY, REQUEST_AUTHENTICATION
from extauthz.minting import SigningKey, key_set


def extauthz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "extauthz", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def story(*members):
    jwks = json.dumps(key_set(*(members or [SigningKey.generate("ES256")])))
    return f"{REQUEST_AUTHENTICATION.format(jwks=jwks)}---\n{AUTHORIZATION_POLICY}"


def test_good_policies_are_clean(tmp_path):
    (tmp_path / "p.yaml").write_text(story())
    done = extauthz("validate", str(tmp_path), "--strict")
    assert (done.returncode, done.stdout) == (0, "0 errors, 0 warnings\n")


def test_every_error_is_a_line_with_place_and_reason(tmp_path):
    (tmp_path / "a.yaml").write_text(story().replace("notPaths", "notpath"))
    (tmp_path / "b.yaml").write_text("a: [")
    done = extauthz("validate", str(tmp_path))
    assert done.returncode == 1
    assert (
        f"{tmp_path}/a.yaml:30: spec.rules[0].to[0].operation.notpath: unknown field; did you mean notPaths?"
        in done.stdout
    )
    assert f"{tmp_path}/b.yaml:2: not readable as YAML" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_keys_and_values_that_cannot_be_used_are_errors(tmp_path):
    wrong = 'notPaths: ["/a/{**}/{*}"]\n        ports: ["http"]'
    text = story({"kty": "what"}).replace('notPaths: ["/productpage"]', wrong)
    (tmp_path / "p.yaml").write_text(text)
    done = extauthz("validate", str(tmp_path), "--json")
    assert done.returncode == 1
    fields = {
        problem["field"]: problem["line"] for problem in json.loads(done.stdout) if problem["severity"] == "error"
    }
    assert fields == {
        "spec.jwtRules[0].jwks": 12,
        "spec.rules[0].to[0].operation.notPaths[0]": 30,
        "spec.rules[0].to[0].operation.ports[0]": 31,
    }


def test_warnings_are_told_and_strict_makes_them_count(tmp_path):
    key = SigningKey.generate("RS256", "k")
    name = x509.Name([])
    start = datetime.datetime(2001, 1, 1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.not_valid_before(start).not_valid_after(start + datetime.timedelta(days=1))
    certificate = builder.public_key(key.private.public_key()).sign(key.private, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    jwks = json.dumps({"k": pem}).replace("\\n", "\\\\n").replace("\\\\n", "\\n")
    (tmp_path / "p.yaml").write_text(REQUEST_AUTHENTICATION.format(jwks=jwks))
    done = extauthz("validate", str(tmp_path))
    assert done.returncode == 0
    assert "warning: " in done.stdout
    assert "ended on 2001-01-02" in done.stdout
    assert "requests without a token pass" in done.stdout
    assert extauthz("validate", "--strict", str(tmp_path)).returncode == 1


def test_wrong_usage_is_told_apart(tmp_path):
    assert extauthz("validate").returncode == 2
    assert extauthz("validate", "--workload", "x y", str(tmp_path)).returncode == 2
    assert extauthz("validate", str(tmp_path / "missing")).returncode == 1


UNMET = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec:
  rules:
  - to: [{operation: {methods: [get]}}]
"""


def test_json_has_one_object_for_each_problem(tmp_path):
    (tmp_path / "p.yaml").write_text(UNMET)
    done = extauthz("validate", "--json", str(tmp_path))
    (problem,) = json.loads(done.stdout)
    assert done.returncode == 0
    assert problem.pop("reason").endswith("write 'GET'")
    assert problem == {
        "file": f"{tmp_path}/p.yaml",
        "line": 6,
        "field": "spec.rules[0].to[0].operation.methods[0]",
        "severity": "warning",
        "code": "never-matches",
    }


def test_json_of_clean_policies_is_an_empty_list(tmp_path):
    (tmp_path / "p.yaml").write_text(UNMET.replace("get", "GET"))
    assert json.loads(extauthz("validate", "--json", str(tmp_path)).stdout) == []


def test_problems_are_sorted_by_file_and_line(tmp_path):
    for name in ("b.yaml", "a.yaml"):
        policy = UNMET.replace("name: p", f"name: {name[0]}").replace("[get]", "[get], ports: [x]")
        (tmp_path / name).write_text(policy + policy.replace("apiVersion", "---\napiVersion", 1).replace("[x]", "['']"))
    lines = extauthz("validate", str(tmp_path)).stdout.splitlines()[:-1]
    places = [(line.split(":")[0], int(line.split(":")[1])) for line in lines]
    assert places == sorted(places)
    assert {place[0] for place in places} == {f"{tmp_path}/a.yaml", f"{tmp_path}/b.yaml"}


def test_a_workload_narrows_the_warnings_to_what_applies_to_it(tmp_path):
    (tmp_path / "p.yaml").write_text(UNMET)
    assert "write 'GET'" in extauthz("validate", "--workload", "shop/app=a", str(tmp_path)).stdout
    elsewhere = extauthz("validate", "--workload", "other/app=a", str(tmp_path)).stdout
    assert "no policy applies to this workload" in elsewhere
    assert "write 'GET'" not in elsewhere


def test_another_root_namespace_applies_to_every_workload(tmp_path):
    (tmp_path / "p.yaml").write_text(UNMET)
    done = extauthz("validate", "--workload", "other/app=a", "--root-namespace", "shop", str(tmp_path))
    assert "write 'GET'" in done.stdout


def test_policies_can_come_from_standard_input(tmp_path):
    command = [sys.executable, "-m", "extauthz", "validate", "-"]
    done = subprocess.run(command, input=UNMET, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("warning: <stdin>:6: ")
    assert done.stdout.endswith("0 errors, 1 warning\n")
