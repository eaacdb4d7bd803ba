"""Which endpoints and which TLS a URL gets, from ServiceEntries and DestinationRules alone."""

import pytest

from extauthz.authn.fetch.options import FetchOptions
from extauthz.authn.fetch.routes import Endpoint, Routes
from extauthz.authn.fetch.tls import Tls
from extauthz.authn.fetch.url import Url
from extauthz.istio.resources import (
    ClientTls,
    DestinationRule,
    Metadata,
    PortTls,
    Resolution,
    Resources,
    ServiceEntry,
    ServicePort,
    TlsMode,
    WorkloadEntry,
)

HTTP = ServicePort(number=80, name="http", protocol="HTTP")
HTTPS = ServicePort(number=443, name="https", protocol="HTTPS")


def entry(*hosts, ports=(HTTP, HTTPS), resolution=Resolution.NONE, name="e", namespace="shop", created="", **more):
    metadata = Metadata(name=name, namespace=namespace, creation_timestamp=created)
    return ServiceEntry(metadata=metadata, hosts=hosts, ports=ports, resolution=resolution, **more)


def rule(host, mode=None, *, name="d", namespace="shop", export_to=(), selector=None, port_tls=(), created="", **tls):
    return DestinationRule(
        metadata=Metadata(name=name, namespace=namespace, creation_timestamp=created),
        host=host,
        tls=ClientTls(mode=mode, **tls) if mode is not None else None,
        port_tls=port_tls,
        export_to=export_to,
        selector=selector,
    )


def route(url, *resources, namespace="shop", **options):
    entries = tuple(one for one in resources if isinstance(one, ServiceEntry))
    rules = tuple(one for one in resources if isinstance(one, DestinationRule))
    given = Resources(service_entries=entries, destination_rules=rules)
    return Routes(given, FetchOptions(**options)).route(Url.parse(url), namespace)


def at(*names, port=80, weight=1):
    return Endpoint(names, port, weight)


# --- without a ServiceEntry ---


def test_without_resources_the_scheme_decides():
    assert route("http://login.example.com/k").tls is None
    assert route("https://login.example.com/k").tls == Tls("login.example.com")
    assert route("https://login.example.com:8443/k").endpoints == (at("login.example.com", port=8443),)


def test_a_short_name_is_looked_up_in_the_cluster_first():
    assert route("http://nginx-proxy/k").endpoints == (at("nginx-proxy.shop.svc.cluster.local", "nginx-proxy"),)
    assert route("http://nginx-proxy.infra/k", cluster_domain="k8s").endpoints == (
        at("nginx-proxy.infra.svc.k8s", "nginx-proxy.infra"),
    )


def test_where_egress_is_the_meshs_outside_hosts_need_a_service_entry():
    refused = route("https://login.example.com/k", egress="mesh")
    assert "login.example.com:443 is outside the mesh and no ServiceEntry has it" in refused.refusal
    assert route("http://192.0.2.7/k", egress="mesh").refusal
    other_port = entry("login.example.com", ports=(HTTP,))
    assert (
        "ServiceEntry shop/e does not have port 443"
        in route("https://login.example.com/k", other_port, egress="mesh").refusal
    )
    assert not route("https://login.example.com/k", entry("login.example.com"), egress="mesh").refusal
    assert not route("https://login.example.com/k", other_port).refusal


def test_where_egress_is_the_meshs_short_names_are_never_those_of_the_internet():
    assert route("http://nginx-proxy.dev/k", egress="mesh").endpoints == (at("nginx-proxy.dev.svc.cluster.local"),)
    assert route("http://127.0.0.1:8080/k", egress="mesh").endpoints == (at("127.0.0.1", port=8080),)


def test_a_proxy_is_for_hosts_outside_the_cluster_without_a_service_entry():
    assert route("https://login.example.com/k").proxied
    assert not route("http://nginx-proxy/k").proxied
    assert not route("http://localhost/k").proxied
    assert not route("http://[::1]/k").proxied
    assert not route("https://login.example.com/k", entry("login.example.com")).proxied


# --- ServiceEntry ---


def test_static_endpoints_have_ports_and_weights_of_their_own():
    given = entry(
        "keys.example.com",
        resolution=Resolution.STATIC,
        endpoints=(
            WorkloadEntry(address="192.0.2.1", ports={"http": 8080}, weight=3),
            WorkloadEntry(address="2001:db8::1", ports={"https": 9}),
            WorkloadEntry(address="unix:///run/keys.sock"),
        ),
    )
    assert route("http://keys.example.com/k", given).endpoints == (
        at("192.0.2.1", port=8080, weight=3),
        at("2001:db8::1", port=80),
        Endpoint((), 0, 1, "/run/keys.sock"),
    )


def test_the_target_port_counts_where_an_endpoint_has_none():
    ports = (ServicePort(number=80, name="http", protocol="HTTP", target_port=8443),)
    given = entry(
        "keys.example.com",
        ports=ports,
        resolution=Resolution.STATIC,
        endpoints=(WorkloadEntry(address="192.0.2.1"), WorkloadEntry(address="192.0.2.2", ports={"http": 81})),
    )
    assert [e.port for e in route("http://keys.example.com/k", given).endpoints] == [8443, 81]


def test_dns_resolves_endpoints_or_without_them_the_host():
    ports = (ServicePort(number=80, name="http", target_port=8080),)
    by_host = entry("keys.example.com", ports=ports, resolution=Resolution.DNS)
    assert route("http://keys.example.com/k", by_host).endpoints == (at("keys.example.com", port=8080),)
    by_name = entry(
        "keys.example.com",
        ports=ports,
        resolution=Resolution.DNS,
        endpoints=(WorkloadEntry(address="eu.example.net"), WorkloadEntry(address="us.example.net", weight=2)),
    )
    assert route("http://keys.example.com/k", by_name).endpoints == (
        at("eu.example.net", port=8080),
        at("us.example.net", port=8080, weight=2),
    )


def test_without_resolution_the_connection_goes_where_it_was_opened_to():
    ports = (ServicePort(number=80, name="http", target_port=8080),)
    assert route("http://keys.example.com/k", entry("keys.example.com", ports=ports)).endpoints == (
        at("keys.example.com"),
    )
    with_address = entry("keys.example.com", ports=ports, addresses=("192.0.2.7", "198.51.100.0/24"))
    assert route("http://keys.example.com/k", with_address).endpoints == (at("192.0.2.7"),)


def test_static_without_endpoints_uses_the_addresses_or_says_that_there_are_none():
    with_address = entry("k.example.com", addresses=("192.0.2.7",), resolution=Resolution.STATIC)
    assert route("http://k.example.com/k", with_address).endpoints == (at("192.0.2.7"),)
    nowhere = entry("k.example.com", resolution=Resolution.STATIC)
    assert "no endpoints" in route("http://k.example.com/k", nowhere).refusal
    selecting = entry("k.example.com", resolution=Resolution.STATIC, selector={"app": "keys"})
    assert "workloadSelector" in route("http://k.example.com/k", selecting).refusal


def test_an_address_in_a_url_is_found_in_the_addresses_of_an_entry():
    given = entry(
        "vip.example.com",
        addresses=("240.0.0.0/24", "not an address"),
        resolution=Resolution.STATIC,
        endpoints=(WorkloadEntry(address="192.0.2.1"),),
    )
    assert route("http://240.0.0.9/k", given, egress="mesh").endpoints == (at("192.0.2.1"),)
    assert route("http://240.0.1.9/k", given, egress="mesh").refusal


def test_the_most_specific_host_of_the_own_namespace_counts():
    wide = entry("*.example.com", name="wide", addresses=("192.0.2.1",))
    exact = entry("keys.example.com", name="exact", addresses=("192.0.2.2",))
    foreign = entry("keys.example.com", name="foreign", namespace="other", addresses=("192.0.2.3",))
    assert route("http://keys.example.com/k", foreign, wide, exact).via == ("ServiceEntry shop/exact",)
    assert route("http://keys.example.com/k", foreign, wide).via == ("ServiceEntry shop/wide",)
    assert route("http://keys.example.com/k", foreign).via == ("ServiceEntry other/foreign",)
    assert route("http://example.com/k", wide).via == ()


def test_the_older_of_equal_entries_counts():
    young = entry("k.example.com", name="young", created="2026-02-01T00:00:00Z")
    old = entry("k.example.com", name="old", created="2026-01-01T00:00:00Z")
    assert route("http://k.example.com/k", young, old).via == ("ServiceEntry shop/old",)


@pytest.mark.parametrize(
    ("export_to", "seen"),
    [((), True), (("*",), True), (("shop",), True), ((".",), False), (("~",), False), (("third",), False)],
)
def test_an_entry_of_another_namespace_is_seen_where_it_is_exported_to(export_to, seen):
    given = entry("k.example.com", namespace="other", export_to=export_to)
    assert bool(route("http://k.example.com/k", given).via) == seen
    assert bool(route("http://k.example.com/k", given, namespace="other").via) == (
        "." in export_to or not export_to or "*" in export_to
    )


def test_a_short_name_finds_the_entry_of_its_full_name():
    given = entry("nginx-proxy.shop.svc.cluster.local", addresses=("192.0.2.7",))
    assert route("http://nginx-proxy/get_jwks", given, egress="mesh").endpoints == (at("192.0.2.7"),)
    assert route("http://nginx-proxy/get_jwks", given, namespace="other").via == ()


# --- DestinationRule ---


def test_a_rule_originates_tls_for_plain_http():
    given = rule("login.example.com", TlsMode.SIMPLE)
    assert route("http://login.example.com:443/k", given).tls == Tls("login.example.com")
    assert route("http://login.example.com/k", entry("login.example.com"), given).tls == Tls("login.example.com")
    assert route("http://login.example.com:443/k").tls is None


def test_disable_leaves_the_scheme_to_decide():
    given = rule("login.example.com", TlsMode.DISABLE)
    assert route("http://login.example.com:443/k", given).tls is None
    assert route("https://login.example.com/k", given).tls == Tls("login.example.com")


def test_a_ports_settings_replace_the_others_as_a_whole():
    given = rule(
        "login.example.com",
        TlsMode.SIMPLE,
        port_tls=(PortTls(port=80), PortTls(port=8443, tls=ClientTls(mode=TlsMode.SIMPLE, sni="other"))),
    )
    assert route("http://login.example.com/k", given).tls is None
    assert route("http://login.example.com:8443/k", given).tls == Tls("other")
    assert route("http://login.example.com:443/k", given).tls == Tls("login.example.com")


def test_all_settings_of_tls_arrive():
    settings = {
        "sni": "sni.example",
        "ca_certificates": "/ca.pem",
        "ca_crl": "/crl.pem",
        "client_certificate": "/c.pem",
        "private_key": "/k.pem",
    }
    mutual = rule("a.example", TlsMode.MUTUAL, subject_alt_names=("x", "y"), **settings)
    assert route("http://a.example/k", mutual).tls == Tls(
        "sni.example", ("x", "y"), "/ca.pem", "/crl.pem", "/c.pem", "/k.pem"
    )
    simple = rule("a.example", TlsMode.SIMPLE, insecure_skip_verify=True, **settings)
    assert route("http://a.example/k", simple).tls == Tls("sni.example", (), "/ca.pem", "/crl.pem", verify=False)
    system = rule("a.example", TlsMode.SIMPLE, ca_certificates="system")
    assert route("http://a.example/k", system).tls == Tls("a.example")


def test_the_names_of_a_service_entry_count_where_the_rule_has_none():
    given = entry("a.example", subject_alt_names=("spiffe://x",))
    assert route("http://a.example/k", given, rule("a.example", TlsMode.SIMPLE)).tls == Tls(
        "a.example", ("spiffe://x",)
    )
    own = rule("a.example", TlsMode.SIMPLE, subject_alt_names=("own",))
    assert route("http://a.example/k", given, own).tls == Tls("a.example", ("own",))


@pytest.mark.parametrize(
    ("given", "explained"),
    [
        (rule("a.example", TlsMode.ISTIO_MUTUAL), "only a sidecar has"),
        (rule("a.example", TlsMode.SIMPLE, credential_name="secret"), "'secret', which is not read here"),
        (rule("a.example", TlsMode.MUTUAL, client_certificate="/c.pem"), "without clientCertificate and privateKey"),
    ],
)
def test_tls_that_cannot_be_had_is_refused_and_explained(given, explained):
    refused = route("http://a.example/k", given)
    assert explained in refused.refusal
    assert "DestinationRule shop/d" in refused.refusal


@pytest.mark.parametrize(
    ("host", "matches"),
    [
        ("nginx-proxy", True),
        ("nginx-proxy.shop.svc.cluster.local", True),
        ("*.shop.svc.cluster.local", True),
        ("*.local", True),
        ("*", True),
        ("nginx", False),
        ("nginx-proxy.other.svc.cluster.local", False),
    ],
)
def test_hosts_of_rules_are_full_names_short_names_and_wildcards(host, matches):
    assert bool(route("http://nginx-proxy/k", rule(host, TlsMode.SIMPLE)).tls) == matches


def test_the_short_host_of_a_rule_is_in_the_rules_namespace():
    assert route("http://nginx-proxy.infra/k", rule("nginx-proxy", TlsMode.SIMPLE)).tls is None
    there = rule("nginx-proxy", TlsMode.SIMPLE, namespace="infra")
    assert route("http://nginx-proxy.infra/k", there).tls is not None


def test_rules_come_from_the_clients_namespace_then_the_services_then_the_root():
    def named(namespace, **more):
        return rule("k.infra.svc.cluster.local", TlsMode.SIMPLE, namespace=namespace, sni=namespace, **more)

    url = "http://k.infra.svc.cluster.local/k"
    everywhere = [named(namespace) for namespace in ("third", "istio-system", "infra", "shop")]
    assert route(url, *everywhere).tls.server_name == "shop"
    assert route(url, *everywhere[:3]).tls.server_name == "infra"
    assert route(url, *everywhere[:2]).tls.server_name == "istio-system"
    assert route(url, *everywhere[:1]).tls is None
    # In the root namespace what is meant for everybody comes last, what is private first.
    assert route(url, *everywhere[:3], namespace="istio-system").tls.server_name == "infra"
    private = named("istio-system", export_to=(".",))
    assert route(url, private, everywhere[2], namespace="istio-system").tls.server_name == "istio-system"


def test_a_less_specific_rule_of_the_own_namespace_comes_before_others():
    own = rule("*.com", TlsMode.SIMPLE, sni="own")
    root = rule("a.example.com", TlsMode.SIMPLE, namespace="istio-system", sni="root")
    assert route("http://a.example.com/k", root, own).tls.server_name == "own"
    longer = rule("*.example.com", TlsMode.SIMPLE, sni="longer")
    assert route("http://a.example.com/k", own, longer).tls.server_name == "longer"


def test_rules_that_are_not_exported_or_for_other_workloads_do_not_count():
    private = rule("a.example.com", TlsMode.SIMPLE, namespace="istio-system", export_to=(".",))
    assert route("http://a.example.com/k", private).tls is None
    nobodys = rule("a.example.com", TlsMode.SIMPLE, export_to=("~",))
    assert route("http://a.example.com/k", nobodys).tls is None
    others = rule("a.example.com", TlsMode.SIMPLE, selector={"app": "web"})
    assert route("http://a.example.com/k", others).tls is None


# --- sharing ---


def test_namespaces_share_a_view_unless_they_have_resources_of_their_own():
    def scope(namespace, *entries):
        return Routes(Resources(service_entries=entries), FetchOptions()).scope(namespace)

    assert scope("shop") == scope("other") == ""
    assert scope("other", entry("a.example")) == ""
    assert scope("shop", entry("a.example")) == "shop"
    assert scope("other", entry("a.example", export_to=("other",))) == "other"
