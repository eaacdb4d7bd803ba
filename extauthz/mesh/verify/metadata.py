"""Metadata of other filters (`experimental.envoy.filters.FILTER[KEY]`): a probe brings it in a header, from which a
filter that precedes everything else takes it and puts it where policies look.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value

from extauthz.istio.resources import Resources

if TYPE_CHECKING:
    from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter

Place = tuple[str, str]
"""The name of a filter, and a key of its metadata."""

PREFIX = "experimental.envoy.filters."


def place_of(key: str) -> Place:
    """The place that a condition with such a key reads."""
    filter_name, _, name = key.removeprefix("experimental.").removesuffix("]").partition("[")
    return filter_name, name


def places(resources: Resources) -> set[Place]:
    """The places that policies read."""
    return {
        place_of(condition.key)
        for policy in resources.authorization_policies
        for rule in policy.rules
        for condition in rule.when
        if condition.key.startswith(PREFIX)
    }


def header(place: Place, value: str) -> tuple[str, str]:
    """The header line that brings a value, given as JSON, to a place."""
    message = json_format.ParseDict(json.loads(value), Value())
    return _header_name(place), base64.b64encode(message.SerializeToString()).decode("ascii")


def _header_name(place: Place) -> str:
    return f"x-extauthz-metadata-{'/'.join(place).encode().hex()}"


def taking_filters(wanted: Iterable[Place]) -> Iterator[HttpFilter]:
    """The filter that takes metadata out of these headers; none when nothing is wanted."""
    # Envoy's whole API takes most of a second to import, and who only writes requests down needs none of it.
    from envoy_data_plane.envoy.extensions.filters.http.header_to_metadata.v3 import (
        Config,
        ConfigKeyValuePair,
        ConfigRule,
        ConfigValueEncode,
        ConfigValueType,
    )

    from extauthz.mesh.filters import http_filter

    rules = [
        ConfigRule(
            header=_header_name(place),
            on_header_present=ConfigKeyValuePair(
                metadata_namespace=place[0],
                key=place[1],
                type=ConfigValueType.PROTOBUF_VALUE,
                encode=ConfigValueEncode.BASE64,
            ),
            remove=True,
        )
        for place in sorted(wanted)
    ]
    if rules:
        yield http_filter("envoy.filters.http.header_to_metadata", Config(request_rules=rules))
