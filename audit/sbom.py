"""The software bill of materials: CycloneDX 1.6 as JSON, of what `pip install extauthz` brings and libnghttp2."""

from __future__ import annotations

from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from audit.installed import closure, distribution, licence, record_hash
from audit.project import ITSELF, RUNTIME, Declared, name_of
from extauthz._version import __version__
from extauthz.server import native

SCHEMA = SchemaVersion.V1_6


class InvalidBom(Exception):
    """What was made is not valid by the schema of CycloneDX."""


def write(declared: Declared, file: Path) -> None:
    """Write the bill of materials. Raises InvalidBom."""
    text = text_of(declared)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")


def text_of(declared: Declared) -> str:
    """The bill of materials as JSON, validated. Raises InvalidBom."""
    text = make_outputter(bom(declared), OutputFormat.JSON, SCHEMA).output_as_string(indent=2)
    if error := JsonStrictValidator(SCHEMA).validate_str(text):
        raise InvalidBom(str(error))
    return text


def bom(declared: Declared) -> Bom:
    """Every distribution that is needed at run time, what it needs, and the system library of the native transport."""
    graph = closure(declared.extras[RUNTIME])
    components = {name: _component(name) for name in graph}
    nghttp2 = _nghttp2()
    root = Component(
        name=ITSELF,
        version=__version__,
        type=ComponentType.APPLICATION,
        bom_ref=ITSELF,
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
        purl=PackageURL("pypi", name=ITSELF, version=__version__),
    )
    made = Bom(components=[*components.values(), nghttp2])
    made.metadata.component = root
    direct = [components[name_of(one)] for one in declared.extras[RUNTIME]]
    made.register_dependency(root, [*direct, nghttp2])
    for name, needed in graph.items():
        made.register_dependency(components[name], [components[other] for other in sorted(needed)])
    return made


def _component(name: str) -> Component:
    found = distribution(name)
    assert found is not None
    digest = record_hash(found)
    return Component(
        name=name,
        version=found.version,
        bom_ref=name,
        licenses=[_license(licence(found))],
        purl=PackageURL("pypi", name=name, version=found.version),
        properties=[Property(name="extauthz:record-sha256", value=digest)] if digest else [],
    )


def _license(text: str) -> License:
    made: License = LicenseFactory().make_from_string(text)
    return made


def _nghttp2() -> Component:
    """libnghttp2, as the extension was linked with it; without a version where there is no extension."""
    there, text = native.available()
    version = text.removeprefix("nghttp2 ") if there else None
    return Component(
        name="libnghttp2",
        version=version,
        bom_ref="libnghttp2",
        licenses=[_license("MIT")],
        purl=PackageURL("generic", name="nghttp2", version=version),
        properties=[Property(name="extauthz:kind", value="system library, of the native transport")],
    )
