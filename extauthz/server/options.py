"""What `serve` can be told, checked as a whole before anything is opened. Plain data: it is sent to workers."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from extauthz.authn.fetch.options import FetchOptions
from extauthz.authorizer import AuthorizerOptions
from extauthz.errors import UsageError
from extauthz.server import listeners, logs
from extauthz.server.listeners import Address
from extauthz.server.transport import DEFAULT_LIMITS, Limits, TlsOptions

ADMIN_OFF = "off"
MAX_WORKERS = 256


@dataclass(frozen=True, slots=True)
class DecisionLogOptions:
    """`--decision-log*`: where decisions are written and what of them.

    - `path`: a file, or `-` for stdout.
    - `sample`: the share of allowed decisions that is written; denials are always written.
    - `max_bytes`, `keep`: rotate a file that has grown so large (0: never), and how many old ones stay.
    - `claims`: names of top-level claims that may be written; no others ever are.
    """

    path: str
    sample: float = 1.0
    max_bytes: int = 0
    keep: int = 5
    claims: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The options of `extauthz serve`, by the names of the command line. Times are seconds."""

    policy: tuple[str, ...]
    authorizer: AuthorizerOptions = field(default_factory=AuthorizerOptions)
    listen: tuple[str, ...] = (listeners.DEFAULT_LISTEN,)
    listen_mode: str = "0660"
    transport: str = "auto"
    workers: int = 1
    limits: Limits = DEFAULT_LIMITS
    tls: TlsOptions | None = None
    fetch: FetchOptions = field(default_factory=FetchOptions)
    jwks_wait: float = 2.0
    admin: str = "127.0.0.1:9192"
    admin_reload: bool = False
    decision_log: DecisionLogOptions | None = None
    otel: bool = False
    log_format: str = "text"
    log_level: str = "info"
    drain: float = 5.0
    stdin: str = ""
    """What `--policy -` stands for: standard input can be read only once, and workers have none."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """`listen`, read. Raises UsageError."""
        return tuple(listeners.parse(text) for text in self.listen)

    @property
    def admin_address(self) -> Address | None:
        """`admin`, read; None when it is off. Raises UsageError."""
        return None if self.admin == ADMIN_OFF else listeners.parse(self.admin, "--admin")

    @property
    def mode(self) -> int:
        """`listen_mode`, read. Raises UsageError."""
        if not re.fullmatch(r"0?[0-7]{3}", self.listen_mode):
            raise UsageError(f"--listen-mode {self.listen_mode!r}: write three octal digits, such as 0660")
        return int(self.listen_mode, 8)


def tls_options(certificate: str, key: str, client_ca: str, client_names: Iterable[str]) -> TlsOptions | None:
    """The `--tls-*` options together; None when none of them is given."""
    options = TlsOptions(certificate, key, client_ca, tuple(client_names))
    return options if any((certificate, key, client_ca, options.client_names)) else None


def check(options: ServeOptions, complaints: Iterable[str] = ()) -> None:
    """Raises UsageError that lists everything that is wrong with the options, one a line, after `complaints`."""
    complaints = dict.fromkeys(complaints)
    for verify in _CHECKS:
        try:
            verify(options)
        except UsageError as error:
            complaints.update(dict.fromkeys(str(error).splitlines()))
    if complaints:
        raise UsageError("\n".join(complaints))


def _check_policy(options: ServeOptions) -> None:
    if not options.policy:
        raise UsageError("--policy: name at least one file or directory of Istio resources")


def _check_addresses(options: ServeOptions) -> None:
    complaints = []
    for text in options.listen:
        try:
            listeners.parse(text)
        except UsageError as error:
            complaints.append(str(error))
    if complaints:
        raise UsageError("\n".join(complaints))


def _check_workers(options: ServeOptions) -> None:
    if not 1 <= options.workers <= MAX_WORKERS:
        raise UsageError(f"--workers {options.workers}: from 1 to {MAX_WORKERS}")
    listeners.check_workers(options.addresses, options.workers)


def _check_tls(options: ServeOptions) -> None:
    tls = options.tls
    if tls is None:
        return
    if not tls.certificate or not tls.key:
        raise UsageError("--tls-cert and --tls-key: TLS needs both")
    if tls.client_names and not tls.client_ca:
        raise UsageError("--tls-client-name needs --tls-client-ca: without it clients show no certificate")


def _check_egress(options: ServeOptions) -> None:
    if options.fetch.egress not in ("open", "mesh"):
        raise UsageError(f"--jwks-egress {options.fetch.egress!r}: use open or mesh")


def _check_resolve(options: ServeOptions) -> None:
    if options.fetch.resolve:
        from extauthz.authn.fetch.resolver import Overrides

        Overrides.parse(options.fetch.resolve)


def _check_jwks_ca(options: ServeOptions) -> None:
    if options.fetch.ca_file:
        import ssl

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(options.fetch.ca_file)
        except ssl.SSLError:
            raise UsageError(f"--jwks-ca {options.fetch.ca_file}: holds no PEM certificate") from None
        except OSError as error:
            raise UsageError(f"--jwks-ca {options.fetch.ca_file}: {error.strerror}") from None


def _check_otel(options: ServeOptions) -> None:
    if options.otel and importlib.util.find_spec("opentelemetry") is None:
        raise UsageError("--otel: the OpenTelemetry SDK is not installed; install extauthz[otel]")


# What a check needs of its own is imported in it, when the option is given: start-up time counts.
_CHECKS: tuple[Callable[[ServeOptions], object], ...] = (
    _check_policy,
    _check_addresses,
    lambda options: options.mode,
    lambda options: options.admin_address,
    _check_workers,
    _check_tls,
    _check_egress,
    _check_resolve,
    _check_jwks_ca,
    _check_otel,
    lambda options: logs.check_options(options.log_format, options.log_level),
)
