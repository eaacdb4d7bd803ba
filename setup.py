"""The optional C extensions; everything else of the build is in pyproject.toml.

What cannot be built here is left out with one line that says why, and the package works without it: `serve` then runs
on grpcio. EXTAUTHZ_EXTENSIONS=required makes that an error instead, EXTAUTHZ_EXTENSIONS=none builds none.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NGHTTP2 = "libnghttp2 >= 1.52"
NATIVE = Path("extauthz/server/native")
SENDER = Path("extauthz/loadtest/native")
OPTIONS = {
    "define_macros": [("Py_LIMITED_API", "0x030b0000"), ("_GNU_SOURCE", None)],
    "extra_compile_args": [
        *("-std=c11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"),
        f"-ffile-prefix-map={Path.cwd()}=.",  # the same build wherever it is made
    ],
    "py_limited_api": True,
}


def pkg_config(*arguments: str) -> list[str] | None:
    """What pkg-config answers, split into words; None when it is not there or does not know the package."""
    command = os.environ.get("PKG_CONFIG", "pkg-config")
    if shutil.which(command) is None:
        return None
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else None


def missing() -> str:
    """Why no extension can be built here; empty when it can."""
    if sys.platform != "linux":
        return "only built on Linux"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "not built for free-threaded Python"
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"no C compiler ({compiler}) found (Debian: apt install gcc libc6-dev)"
    return ""


def messages() -> list[Extension]:
    """The readers of plain Check messages and tokens, and the writer of dynamic metadata."""
    # With -O3 small functions are inlined, which makes reading a message a fifth faster.
    options = {**OPTIONS, "extra_compile_args": [*OPTIONS["extra_compile_args"], "-O3"]}
    return [
        Extension(f"extauthz.{name.replace('/', '.')}", [f"extauthz/{name}.c"], optional=optional(), **options)
        for name in ("checkapi/_scan", "checkapi/_wire", "authn/_jws")
    ]


def on_nghttp2(name: str, directory: Path) -> Extension:
    """What is built from all of a directory, on libnghttp2: the native transport, the load tester's sender."""
    return Extension(
        name,
        sorted(str(path) for path in directory.glob("*.c")),
        depends=sorted(str(path) for path in directory.glob("*.h")),
        optional=optional(),
        **{
            **OPTIONS,
            "extra_compile_args": [*OPTIONS["extra_compile_args"], *(pkg_config("--cflags", "libnghttp2") or [])],
            "extra_link_args": pkg_config("--libs", "libnghttp2"),
        },
    )


def optional() -> bool:
    """Whether an extension that cannot be built is left out."""
    return os.environ.get("EXTAUTHZ_EXTENSIONS") != "required"


def skip(what: str, reason: str) -> None:
    """Say what is left out and why; an error where it is required."""
    line = f"extauthz: {what} is left out: {reason}"
    if not optional():
        raise SystemExit(line)
    print(line, file=sys.stderr)


def extensions() -> list[Extension]:
    """What can be built here."""
    if os.environ.get("EXTAUTHZ_EXTENSIONS") == "none":
        return []
    if reason := missing():
        skip("every C extension", reason)
        return []
    if pkg_config("--exists", NGHTTP2) is None:
        skip("what needs HTTP/2", f"pkg-config finds no {NGHTTP2} (Debian: apt install pkg-config libnghttp2-dev)")
        return messages()
    return [
        *messages(),
        on_nghttp2("extauthz.server.native._native", NATIVE),
        on_nghttp2("extauthz.loadtest._sender", SENDER),
    ]


class build(build_ext):
    """build_ext that says in one line what could not be compiled."""

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:
            skip(ext.name, f"it does not compile ({error})")


built = extensions()
setup(
    ext_modules=built,
    cmdclass={"build_ext": build},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if built else {},
)
