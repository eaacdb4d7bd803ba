"""Trust domains and their aliases: what a policy's principal or trust domain stands for in this mesh.

Istio: `pilot/pkg/security/trustdomain`.
"""

from __future__ import annotations

from dataclasses import dataclass

LOCAL = "cluster.local"
"""In a policy this stands for the mesh's trust domain, whatever that is."""

_IDENTITY_PARTS = 5
"""`TD/ns/NAMESPACE/sa/ACCOUNT`: only principals of this form have a trust domain."""


@dataclass(frozen=True, slots=True)
class TrustDomains:
    """The mesh's trust domain and its aliases; an identity in any of them is an identity in all."""

    names: tuple[str, ...]

    def principals(self, principal: str) -> tuple[str, ...]:
        """The principals that one value of `principals` stands for."""
        parts = principal.split("/")
        if len(parts) != _IDENTITY_PARTS or parts[0] == "*":
            return (principal,)
        domain = parts[0]
        if domain != LOCAL and not any(_meets(domain, name) for name in self.names):
            return (principal,)
        identity = principal[len(domain) :]
        # A suffix pattern stays as it is for the domains it matches: that keeps it one value.
        return tuple(dict.fromkeys(principal if _is_suffix(domain, name) else name + identity for name in self.names))

    def trust_domains(self, trust_domain: str) -> tuple[str, ...]:
        """The trust domains that one value of `trustDomains` stands for."""
        return self.names if trust_domain in self.names else (trust_domain,)


def _meets(domain: str, name: str) -> bool:
    return (
        name in (domain, "*")
        or _is_prefix(domain, name)
        or _is_prefix(name, domain)
        or _is_suffix(domain, name)
        or _is_suffix(name, domain)
    )


def _is_prefix(pattern: str, text: str) -> bool:
    return pattern.endswith("*") and text.startswith(pattern[:-1])


def _is_suffix(pattern: str, text: str) -> bool:
    return pattern.startswith("*") and text.endswith(pattern[1:])
