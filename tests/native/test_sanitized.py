"""The C of the native transport under AddressSanitizer and UndefinedBehaviorSanitizer, fed with mutated traffic.

A short form of `make native-check`; EXTAUTHZ_FUZZ_ROUNDS makes it longer.
"""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "extauthz" / "server" / "native"
ROUNDS = os.environ.get("EXTAUTHZ_FUZZ_ROUNDS", "3000")


def unrandomized():
    """What runs a program with its memory laid out as ever: some sanitizers crash now and then where it is not."""
    setarch = shutil.which("setarch")
    if setarch and subprocess.run([setarch, "-R", "true"], check=False, capture_output=True).returncode == 0:
        return [setarch, "-R"]
    return []


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    compiler = shutil.which("cc")
    if compiler is None or subprocess.run(["pkg-config", "--exists", "libnghttp2"], check=False).returncode:
        pytest.skip("no C compiler or no libnghttp2 headers (Debian: apt install gcc pkg-config libnghttp2-dev)")
    program = tmp_path_factory.mktemp("fuzz") / "fuzz_session"
    flags = ["-std=c11", "-g", "-O1", "-D_GNU_SOURCE", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [str(HERE / "fuzz_session.c"), str(SOURCES / "session.c"), str(SOURCES / "call.c")]
    built = subprocess.run(
        [compiler, *flags, f"-I{SOURCES}", *sources, "-o", str(program), "-lnghttp2", "-lm"],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode and "asan" in built.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    return program


def seed_files(directory):
    spec = importlib.util.spec_from_file_location("native_seeds", HERE / "seeds.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write(directory)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_mutated_traffic_and_failing_allocations_break_nothing(harness, tmp_path, seed):
    files = [str(file) for file in seed_files(tmp_path)]
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1"}
    done = subprocess.run(
        [*unrandomized(), str(harness), ROUNDS, seed, *files],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == f"{ROUNDS} inputs\n"
