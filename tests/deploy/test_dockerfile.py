"""The image's Dockerfile: its steps are executed, and what they install serves as another user, outside the source."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy_dockerfile import Builder, Stage, ignored, stages
from deploy_manifests import DEPLOY, ROOT
from deploy_serve import as_user, serve_variables, serving

DOCKERFILE = DEPLOY / "Dockerfile"
BUILD, RUN = stages(DOCKERFILE)
MOVED = ("/src", "/wheels", "/opt/extauthz")


@pytest.fixture(scope="module")
def built() -> Iterator[tuple[Builder, Path]]:
    """The stages executed, and the root of the last one, which every user may read."""
    if not shutil.which("cc") or subprocess.run(["pkg-config", "--exists", "libnghttp2"], check=False).returncode:
        pytest.skip("no compiler or no libnghttp2 headers")
    directory = Path(tempfile.mkdtemp(prefix="extauthz-image-"))
    directory.chmod(0o755)
    builder = Builder(ROOT, directory, sys.executable, MOVED)
    try:
        builder.build(BUILD)
        builder.build(RUN)
        yield builder, builder.root(RUN.name)
    finally:
        shutil.rmtree(directory)


def test_the_user_is_a_number_and_not_root():
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", RUN.last("USER").text)
    order = [step.name for step in RUN.steps]
    assert "RUN" not in order[order.index("USER") :]


def test_nothing_needs_a_shell():
    assert RUN.last("ENTRYPOINT").form == ["/opt/extauthz/bin/extauthz"]
    assert RUN.last("CMD").form == ["serve"]
    assert RUN.last("HEALTHCHECK").form == ["/opt/extauthz/bin/extauthz", "healthcheck"]


def test_the_image_has_the_library_and_not_what_built_on_it():
    assert RUN.apt_packages() == ["libnghttp2-14"]
    assert "libnghttp2-dev" in BUILD.apt_packages()


def test_apt_knows_the_packages():
    if not shutil.which("apt-cache"):
        pytest.skip("no apt here")
    packages = BUILD.apt_packages() + RUN.apt_packages()
    listed = subprocess.run(["apt-cache", "policy", *packages], capture_output=True, text=True, check=True).stdout
    candidates = dict(re.findall(r"^(\S+):\n(?:  .*\n)*?  Candidate: (\S+)", listed, re.MULTILINE))
    if not candidates:
        pytest.skip("apt has no lists of packages here; apt-get update fetches them")
    assert set(candidates) == set(packages)
    assert "(none)" not in candidates.values()


def test_every_variable_of_the_image_is_an_option_of_serve():
    named = {name for name in RUN.environment() if name.startswith("EXTAUTHZ_")}
    assert named <= serve_variables()
    assert {"EXTAUTHZ_POLICY", "EXTAUTHZ_LISTEN", "EXTAUTHZ_ADMIN"} <= named


def test_only_what_is_copied_is_sent_to_the_engine():
    text = (ROOT / ".dockerignore").read_text()
    assert text == (DEPLOY / "Dockerfile.dockerignore").read_text()
    patterns = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert not ignored("extauthz/server/native/session.c", patterns)
    assert not ignored("README.md", patterns)
    for unwanted in (".git/config", ".venv/bin/python", "tests/conftest.py", "extauthz/a.so", "extauthz/x/__pycache__"):
        assert ignored(unwanted, patterns), unwanted


def test_the_steps_install_a_program_that_serves_as_another_user(built, tmp_path):
    builder, root = built
    entrypoint = str(root / RUN.last("ENTRYPOINT").form[0].lstrip("/"))
    assert len(builder.skipped) == 2
    shared = Path(tempfile.mkdtemp(prefix="extauthz-run-"))
    try:
        shared.chmod(0o1777)
        policies = shared / "policies"
        shutil.copytree(DEPLOY / "kubernetes" / "deployment" / "policies", policies)
        variables = RUN.environment() | {
            "EXTAUTHZ_POLICY": str(policies),
            "EXTAUTHZ_LISTEN": f"unix:{shared}/extauthz.sock",
            "EXTAUTHZ_ADMIN": "127.0.0.1:0",
            "EXTAUTHZ_TRANSPORT": "native",
            "EXTAUTHZ_DRAIN": "0.2",
        }
        user = as_user(*RUN.last("USER").text.split(":"))
        command = (*user, entrypoint)
        before = sorted(path for path in root.rglob("*"))
        with serving(RUN.last("CMD").form, variables, tmp_path / "log", command, cwd="/") as server:
            status = Path(f"/proc/{server.process.pid}/status")
            if user:
                assert "\nUid:\t65532\t65532" in status.read_text()
            maps = Path(f"/proc/{server.process.pid}/maps").read_text()
            assert f"{root}/opt/extauthz/" in maps
            assert str(ROOT / "extauthz") not in maps
            health = server.healthcheck(*command)
            assert health.returncode == 0, health.stderr
            assert server.terminate() == 0, server.log
            # A server that is gone is not healthy.
            assert server.healthcheck(*command).returncode == 1
        assert sorted(path for path in root.rglob("*")) == before, "something was written outside the mounted directory"
    finally:
        shutil.rmtree(shared)


def test_the_source_tree_is_not_importable_from_the_image(built):
    _, root = built
    python = root / "opt" / "extauthz" / "bin" / "python"
    where = subprocess.run(
        [str(python), "-c", "import extauthz; print(extauthz.__file__)"],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(root)


def test_a_stage_is_read_with_its_continued_lines(tmp_path):
    path = tmp_path / "Dockerfile"
    path.write_text(
        "ARG A=1\nFROM a AS first\n# no\nENV A=1 \\\n    B=2\nRUN apt-get install -y x y && z\nFROM b\nRUN w\n"
    )
    first, second = stages(path)
    assert (first.name, second.name) == ("first", "1")
    assert first.environment() == {"A": "1", "B": "2"}
    assert first.apt_packages() == ["x", "y"]
    assert isinstance(second, Stage)
