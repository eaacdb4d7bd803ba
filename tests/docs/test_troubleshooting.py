"""The page by symptom names every text that a client can get about a token."""

from __future__ import annotations

from doc_pages import DOCS

from extauthz.authn.statuses import Status

TIMES = ("[iat]", "[nbf]")


def test_every_status_text_is_explained():
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    reaching_clients = [status for status in Status if status is not Status.MISSING]
    # Those of the other times are named beside the one of `exp`.
    missing = [text for text in reaching_clients if text not in page and not any(time in text for time in TIMES)]
    assert not missing
