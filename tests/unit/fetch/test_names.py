import pytest

from extauthz.authn.fetch.names import cluster_names, how_specific, service_namespace, why_forbidden


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("nginx-proxy", ("nginx-proxy.shop.svc.cluster.local",)),
        ("nginx-proxy.infra", ("nginx-proxy.infra.svc.cluster.local",)),
        ("nginx-proxy.infra.svc", ("nginx-proxy.infra.svc.cluster.local",)),
        ("nginx-proxy.infra.svc.cluster.local", ("nginx-proxy.infra.svc.cluster.local",)),
        ("login.example.com", ()),
        ("a.b.c.d", ()),
        ("127.0.0.1", ()),
        ("::1", ()),
        ("localhost", ()),
    ],
)
def test_short_names_are_completed_as_a_pods_resolver_does(host, names):
    assert cluster_names(host, "shop", "cluster.local") == names


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("169.254.169.254", "link-local"),
        ("169.254.0.1", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("fd00:ec2::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("192.0.0.192", "metadata"),
        ("168.63.129.16", "metadata"),
        ("0.0.0.0", "no address"),
        ("::", "no address"),
        ("224.0.0.1", "no address"),
        ("127.0.0.1", ""),
        ("10.1.2.3", ""),
        ("::1", ""),
        ("fd00::1", ""),
        ("8.8.8.8", ""),
    ],
)
def test_what_only_this_machine_reaches_is_forbidden(address, why):
    assert why in why_forbidden(address)
    assert bool(why) == bool(why_forbidden(address))


def test_exact_hosts_beat_wildcards_and_long_wildcards_short_ones():
    hosts = ("keys.login.example.com",)
    ranks = [how_specific(p, hosts) for p in ("*", "*.com", "*.example.com", "*.login.example.com", hosts[0])]
    assert ranks == sorted(ranks)
    assert 0 < ranks[0] < ranks[1]
    assert how_specific("*.keys.login.example.com", hosts) == 0
    assert how_specific("login.example.com", hosts) == 0
    assert how_specific("KEYS.Login.Example.com.", hosts) == ranks[-1]


def test_the_namespace_of_a_service_is_in_its_full_name():
    assert service_namespace("a.b.svc.cluster.local", "cluster.local") == "b"
    assert service_namespace("a.example.com", "cluster.local") == ""
