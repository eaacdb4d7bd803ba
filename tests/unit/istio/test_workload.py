"""Which policies apply to a workload, and in which order."""

import pytest

from extauthz.errors import UsageError
from extauthz.istio.resources import (
    AuthorizationPolicy,
    Gateway,
    Metadata,
    RequestAuthentication,
    Resources,
    Service,
    TargetRef,
)
from extauthz.istio.workload import Workload, select

GATEWAY_API = "gateway.networking.k8s.io"


def policy(name, namespace="shop", selector=None, *refs):
    return AuthorizationPolicy(metadata=Metadata(name=name, namespace=namespace), selector=selector, target_refs=refs)


def names(policies, workload, **resources):
    chosen = select(Resources(authorization_policies=tuple(policies), **resources), Workload.parse(workload))
    return {one.metadata.name for one in chosen.authorization_policies}


def gateway_ref(name):
    return TargetRef(group=GATEWAY_API, kind="Gateway", name=name)


def test_namespace_labels_and_root_namespace_choose():
    policies = [
        policy("own"),
        policy("root", "istio-system"),
        policy("other", "elsewhere"),
        policy("web", "shop", {"app": "web"}),
        policy("both", "shop", {"app": "web", "v": "1"}),
        policy("empty", "shop", {}),
        policy("root-web", "istio-system", {"app": "web"}),
        policy("ref", "shop", None, gateway_ref("gw")),
    ]
    assert names(policies, "shop/app=web") == {"own", "root", "web", "empty", "root-web"}
    assert names(policies, "shop") == {"own", "root", "empty"}


def test_a_gateway_of_the_gateway_api_is_chosen_by_reference_or_labels():
    policies = [
        policy("ref", "shop", None, gateway_ref("gw")),
        policy("other-ref", "shop", None, gateway_ref("x")),
        policy("one-of", "shop", None, gateway_ref("x"), gateway_ref("gw")),
        policy("labels", "shop", {"gateway.networking.k8s.io/gateway-name": "gw"}),
        policy("root-ref", "istio-system", None, gateway_ref("gw")),
    ]
    assert names(policies, "shop/gateway.networking.k8s.io/gateway-name=gw") == {"ref", "one-of", "labels"}


def test_a_waypoint_is_chosen_by_reference_only():
    waypoint = Gateway(metadata=Metadata(name="wp", namespace="shop"), gateway_class="istio-waypoint")
    service = Service(metadata=Metadata(name="cart", namespace="shop"))
    policies = [
        policy("plain"),
        policy("labels", "shop", {"gateway.networking.k8s.io/gateway-name": "wp"}),
        policy("gateway", "shop", None, gateway_ref("wp")),
        policy("service", "shop", None, TargetRef(kind="Service", name="cart")),
        policy("other-service", "shop", None, TargetRef(kind="Service", name="pay")),
        policy("service-elsewhere", "x", None, TargetRef(kind="Service", name="cart")),
        policy("class", "istio-system", None, TargetRef(group=GATEWAY_API, kind="GatewayClass", name="istio-waypoint")),
        policy(
            "class-elsewhere", "shop", None, TargetRef(group=GATEWAY_API, kind="GatewayClass", name="istio-waypoint")
        ),
    ]
    found = names(policies, "shop/gateway.networking.k8s.io/gateway-name=wp", gateways=(waypoint,), services=(service,))
    assert found == {"gateway", "service", "class"}


def test_authentications_come_in_istios_order():
    def authentication(name, namespace, time):
        return RequestAuthentication(metadata=Metadata(name=name, namespace=namespace, creation_timestamp=time))

    given = (
        authentication("root", "istio-system", "2020-01-01T00:00:00Z"),
        authentication("b", "shop", "2024-01-01T00:00:00Z"),
        authentication("a", "shop", "2024-01-01T00:00:00Z"),
        authentication("old", "shop", "2023-01-01T00:00:00Z"),
    )
    chosen = select(Resources(request_authentications=given), Workload.parse("shop/app=web"))
    assert [one.metadata.name for one in chosen.request_authentications] == ["old", "a", "b", "root"]


def test_without_a_workload_everything_applies():
    given = Resources(authorization_policies=(policy("a", "x", {"k": "v"}), policy("b", "y")))
    assert len(select(given, None).authorization_policies) == 2


@pytest.mark.parametrize(
    "text", ["", "/app=web", "shop/", "shop/app", "shop/app=web,", "Shop/a=b", "shop/a=b,a=c", "s/a=*"]
)
def test_an_unreadable_workload_says_how_to_write_it(text):
    with pytest.raises(UsageError, match="write NAMESPACE/key=value,key=value"):
        Workload.parse(text)
