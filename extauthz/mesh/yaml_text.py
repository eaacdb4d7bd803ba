"""YAML that reads the same everywhere: by PyYAML, by Kubernetes and by Envoy, which differ about plain scalars."""

from __future__ import annotations

import re
from typing import Any

_AMBIGUOUS = re.compile(r"[-+.0-9]|(?:y|n|yes|no|on|off|true|false|null|~)$", re.IGNORECASE)
"""Texts that some reader takes for something else when they are not quoted: Envoy's reads `y` as true."""


def yaml_text(*documents: Any) -> str:
    """Documents as one stream of YAML, their members in the order in which they are."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if _AMBIGUOUS.match(value) else None)

    Dumper.add_representer(str, text)
    return yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, width=120, allow_unicode=True)
