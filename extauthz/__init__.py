"""Envoy external authorization that enforces Istio's RequestAuthentication and AuthorizationPolicy as the mesh does.

The public API: `load_policies` reads Istio resources, `Authorizer` decides by them, `Request` and `Decision` are what
goes in and comes out. Everything else may change between releases.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from extauthz._version import __version__

if TYPE_CHECKING:
    from extauthz.authorizer import Authorizer, AuthorizerOptions
    from extauthz.decision import Decision
    from extauthz.errors import ExtAuthzError, MalformedCheckRequest, PolicyError, Problem, UsageError
    from extauthz.istio.load import load_policies
    from extauthz.request import Request

__all__ = [
    "Authorizer",
    "AuthorizerOptions",
    "Decision",
    "ExtAuthzError",
    "MalformedCheckRequest",
    "PolicyError",
    "Problem",
    "Request",
    "UsageError",
    "__version__",
    "load_policies",
]

_HOMES = {
    "Authorizer": "authorizer",
    "AuthorizerOptions": "authorizer",
    "Decision": "decision",
    "ExtAuthzError": "errors",
    "MalformedCheckRequest": "errors",
    "PolicyError": "errors",
    "Problem": "errors",
    "Request": "request",
    "UsageError": "errors",
    "load_policies": "istio.load",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: commands that need only a part of the package start faster.
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'extauthz' has no attribute {name!r}")
    return getattr(import_module(f"extauthz.{home}"), name)
