"""The story's key server: nginx as `nginx-proxy` in the cluster, asked for `/get_jwks` through a ServiceEntry."""

import json
import os
import shutil
import socket
import subprocess
import time

import pytest

from extauthz.cli import main
from extauthz.istio.resources import Metadata, Resolution, Resources, ServiceEntry, ServicePort, WorkloadEntry
from extauthz.minting import key_set

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

CONFIGURATION = """
daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  absolute_redirect off;
  default_type application/json;
  server {{
    listen 127.0.0.1:{port};
    location = /get_jwks {{ alias {directory}/jwks.json; }}
    location = /moved {{ return 301 /get_jwks; }}
  }}
  server {{
    listen 127.0.0.1:{tls_port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {private};
    location = /get_jwks {{ alias {directory}/jwks.json; }}
  }}
}}
"""


@pytest.fixture
def nginx(tmp_path, key, authority):
    """nginx with the key set at /get_jwks: its ports for plain text and for TLS as keys.example.com."""
    if NGINX is None:
        pytest.skip("nginx is not installed (Debian: apt install nginx-light)")
    certificate, private = authority.files("nginx", "keys.example.com")
    files = {"directory": tmp_path, "certificate": certificate, "private": private}
    (tmp_path / "jwks.json").write_text(json.dumps(key_set(key)))
    process = None
    # A port that was free may be somebody else's by the time that nginx asks for it: it ends then.
    while process is None:
        with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as also_free:
            port, tls_port = free.getsockname()[1], also_free.getsockname()[1]
        (tmp_path / "nginx.conf").write_text(CONFIGURATION.format(port=port, tls_port=tls_port, **files))
        process = started(tmp_path)
    try:
        yield port, tls_port
    finally:
        process.terminate()
        process.wait()


def started(directory):
    """nginx once it listens; None when its ports are taken."""
    process = subprocess.Popen([NGINX, "-c", str(directory / "nginx.conf"), "-p", str(directory)])
    deadline = time.monotonic() + 60
    while not (directory / "pid").exists():  # which it writes when it listens
        if process.poll() is not None:
            log = (directory / "error.log").read_text()
            assert "Address already in use" in log, log
            (directory / "error.log").unlink()
            return None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_the_storys_key_server_is_reached_in_the_cluster(nginx, fetcher, source_of, key, tmp_path, eventually):
    entry = ServiceEntry(
        metadata=Metadata(name="nginx-proxy", namespace="istio-system"),
        hosts=("nginx-proxy.istio-system.svc.cluster.local",),
        ports=(ServicePort(number=80, name="http", protocol="HTTP"),),
        resolution=Resolution.STATIC,
        endpoints=(WorkloadEntry(address="127.0.0.1", ports={"http": nginx[0]}),),
    )
    made = fetcher(egress="mesh")
    source = source_of(
        made, "http://nginx-proxy/get_jwks", namespace="istio-system", resources=Resources(service_entries=(entry,))
    )
    assert made.wait(60)
    assert [one.kid for one in source.key_set.keys] == [key.kid]
    (state,) = made.states()
    assert state.via == ("ServiceEntry istio-system/nginx-proxy",)
    os.replace(tmp_path / "jwks.json", tmp_path / "gone.json")
    eventually(lambda: "404" in made.states()[0].error)
    assert made.states()[0].failures > 0
    assert [one.kid for one in source.key_set.keys] == [key.kid]


POLICIES = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt-example, namespace: istio-system}}
spec:
  jwtRules:
  - {{issuer: testing@secure.istio.io, jwksUri: "http://nginx-proxy/get_jwks"}}
  - {{issuer: outside, jwksUri: "http://keys.example.com:443/get_jwks"}}
  - {{issuer: moved, jwksUri: "http://nginx-proxy/moved"}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: outside, namespace: istio-system}}
spec:
  hosts: [keys.example.com]
  location: MESH_EXTERNAL
  ports: [{{number: 443, name: http, protocol: HTTP, targetPort: {tls_port}}}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: outside, namespace: istio-system}}
spec:
  host: "*.example.com"
  trafficPolicy: {{tls: {{mode: SIMPLE, caCertificates: {ca}}}}}
"""


def test_the_storys_policies_are_fetched_by_short_name_and_by_tls_origination(nginx, key, tmp_path, authority, capsys):
    port, tls_port = nginx
    policies = tmp_path / "policies.yaml"
    policies.write_text(POLICIES.format(tls_port=tls_port, ca=authority.file))
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *("jwks", "--json", "--jwks-egress", "mesh", str(policies)),
                *("--resolve", f"nginx-proxy.istio-system.svc.cluster.local:80=127.0.0.1:{port}"),
                *("--resolve", "keys.example.com=127.0.0.1"),
            ]
        )
    inside, outside, moved = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    assert [report["keys"][0]["kid"] for report in (inside, outside, moved)] == [key.kid] * 3
    assert outside["steps"][-1] == f"200 from keys.example.com at 127.0.0.1:{tls_port} over TLS"
    assert [one for one in moved["steps"] if "redirected" in one]
