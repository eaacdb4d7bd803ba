"""Build the message modules of `extauthz/protos` from the .proto files here: `python protos/generate.py [OUTPUT]`."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

import google.rpc
from grpc_tools import protoc

HERE = Path(__file__).parent


def generate(output: Path) -> None:
    """Write `extauthz/protos/*_pb2.py` and their stubs below `output`. Exits when a file does not compile."""
    googleapis = Path(next(iter(google.rpc.__path__))).parent.parent
    sources = sorted(str(path) for path in HERE.glob("extauthz/protos/*.proto"))
    includes = [f"-I{path}" for path in (HERE, googleapis, files("grpc_tools") / "_proto")]
    status = protoc.main(["protoc", *includes, f"--python_out={output}", f"--pyi_out={output}", *sources])
    if status:
        sys.exit(status)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent)
