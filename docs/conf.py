"""How Sphinx builds docs/ as a site (`make docs`). Pages are plain Markdown, as they are read on GitHub, too."""

from __future__ import annotations

from typing import Any

from extauthz._version import __version__

NAVIGATION = {
    "Start": ("quick-start", "concepts"),
    "Recipes": (
        "recipes/gateway",
        "recipes/issuers",
        "recipes/roles",
        "recipes/audiences",
        "recipes/cookies",
        "recipes/grpc",
        "recipes/mtls",
        "recipes/shadow",
        "recipes/moving",
    ),
    "Reference": ("request-authentication", "authorization-policy", "cli", "key-sets", "limits", "python"),
    "Running": ("operating", "troubleshooting", "verify", "loadtest", "performance"),
    "Contributing": ("architecture", "dependencies"),
}
"""The side bar. A page that is not in it is an error."""

project = "extauthz"
author = "the extauthz authors"
project_copyright = "the extauthz authors, Apache-2.0"
version = release = __version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}

# Links to headings are checked: `page.md#heading`, with the names that GitHub gives.
myst_heading_anchors = 4
# Blocks of shortened output are not whole JSON or YAML; they are shown as they are.
suppress_warnings = ["misc.highlighting_failure"]
highlight_language = "none"

html_theme = "furo"
html_title = "extauthz"
html_copy_source = False
html_show_sourcelink = False


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_navigation)


def _add_navigation(app: Any, page: str, source: list[str]) -> None:
    """Give the first page its side bar, which would be noise in the Markdown."""
    if page == "index":
        for caption, pages in NAVIGATION.items():
            source[0] += "\n\n" + "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"])
