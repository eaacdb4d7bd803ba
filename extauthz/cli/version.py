"""`extauthz version`, and `extauthz --version`."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="Also show the versions of what it runs on, and which transports there are."),
    ] = False,
) -> None:
    """Show the version and, with --verbose, what this installation can do."""
    from extauthz._version import __version__

    print(f"extauthz {__version__}")
    if verbose:
        for name, value in _installation():
            print(f"{name}: {value}")


def _show(asked: bool) -> None:
    if asked:
        command()
        raise typer.Exit


def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Envoy external authorization that enforces Istio's policies exactly as the mesh does."""


def _installation() -> list[tuple[str, str]]:
    import platform
    from importlib.metadata import version

    from google.protobuf.internal import api_implementation

    from extauthz.server import native

    available, reason = native.available()
    packages = ("grpcio", "protobuf", "cryptography", "pyjwt", "httpx", "envoy-data-plane")
    return [
        ("python", platform.python_version()),
        *((name, version(name)) for name in packages),
        ("protobuf codec", api_implementation.Type()),
        ("native transport", "available" if available else f"not available: {reason}"),
    ]
