"""`extauthz token`: mint a test token."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from extauthz.errors import UsageError
from extauthz.minting import ALGORITHMS, SigningKey, key_set


def _claim(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--claim {text!r}: write NAME=VALUE, where VALUE is JSON or plain text")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
