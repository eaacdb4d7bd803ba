"""The story's key server: nginx as `nginx-proxy` in the cluster, asked for `/get_jwks` through a ServiceEntry."""

import json
import os
import shutil
import socket
import subprocess
import time

import pytest

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
  default_type application/json;
  server {{
    listen 127.0.0.1:{port};
    location = /get_jwks {{ alias {directory}/jwks.json; }}
  }}
}}
"""


@pytest.fixture
def nginx(tmp_path, key):
    if NGINX is None:
        pytest.skip("nginx is not installed (Debian: apt install nginx-light)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "jwks.json").write_text(json.dumps(key_set(key)))
    (tmp_path / "nginx.conf").write_text(CONFIGURATION.format(directory=tmp_path, port=port))
    process = subprocess.Popen([NGINX, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)])
    try:
        deadline = time.monotonic() + 10
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


def test_the_storys_key_server_is_reached_in_the_cluster(nginx, fetcher, source_of, key, tmp_path, eventually):
    entry = ServiceEntry(
        metadata=Metadata(name="nginx-proxy", namespace="istio-system"),
        hosts=("nginx-proxy.istio-system.svc.cluster.local",),
        ports=(ServicePort(number=80, name="http", protocol="HTTP"),),
        resolution=Resolution.STATIC,
        endpoints=(WorkloadEntry(address="127.0.0.1", ports={"http": nginx}),),
    )
    made = fetcher(egress="mesh")
    source = source_of(
        made, "http://nginx-proxy/get_jwks", namespace="istio-system", resources=Resources(service_entries=(entry,))
    )
    assert made.wait(5)
    assert [one.kid for one in source.key_set.keys] == [key.kid]
    (state,) = made.states()
    assert state.via == ("ServiceEntry istio-system/nginx-proxy",)
    os.replace(tmp_path / "jwks.json", tmp_path / "gone.json")
    eventually(lambda: made.states()[0].failures > 0)
    assert "404" in made.states()[0].error
    assert [one.kid for one in source.key_set.keys] == [key.kid]
