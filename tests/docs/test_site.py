"""The documentation builds as a site without a warning, and the site needs nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import DOCS

LOADED = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=["']((?:https?:)?//[^"']+)""")
IN_STYLES = re.compile(r"""(?:@import|url\()\s*["']?((?:https?:)?//[^"')]+)""")
SPHINX = (sys.executable, "-m", "sphinx", "--builder", "html", "--fail-on-warning", "--nitpicky", "--quiet")


def _build(source: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("sphinx")
    command = [*SPHINX, "--doctree-dir", str(directory / "doctrees"), str(source), str(directory / "site")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path):
    done = _build(DOCS, tmp_path)
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    assert (site / "index.html").exists()
    assert len(list(site.rglob("*.html"))) > len(list(DOCS.rglob("*.md")))
    for path in site.rglob("*.html"):
        assert not LOADED.findall(path.read_text(encoding="utf-8")), path
    for path in site.rglob("*.css"):
        assert not IN_STYLES.findall(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("target", ["nowhere.md", "second.md#nothing"])
def test_a_broken_link_is_an_error(tmp_path, target):
    source = tmp_path / "docs"
    source.mkdir()
    settings = (DOCS / "conf.py").read_text(encoding="utf-8")
    (source / "conf.py").write_text(settings + "\nNAVIGATION = {'All': ('second',)}\nhtml_theme = 'basic'\n")
    (source / "index.md").write_text(f"# First\n\n[there]({target})\n")
    (source / "second.md").write_text("# Second\n")
    done = _build(source, tmp_path)
    assert done.returncode != 0
    assert target.rpartition("#")[2] in done.stderr
