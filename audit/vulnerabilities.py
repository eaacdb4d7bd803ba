"""Known vulnerabilities, asked of the Python Packaging Advisory Database through `pip-audit`.

pip-audit takes a service that answers "not found" for one without advisories: each distribution that it skipped counts
here as not asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SECONDS = 120


@dataclass(frozen=True, slots=True)
class Answer:
    """Vulnerabilities as lines for people, and what could not be asked, with the reason."""

    vulnerable: tuple[str, ...]
    not_asked: Mapping[str, str]


def ask(versions: Mapping[str, str]) -> Answer:
    """Ask about distributions in their versions."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "requirements.txt"
        file.write_text("".join(f"{name}=={version}\n" for name, version in sorted(versions.items())))
        options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--timeout", "10", "--format", "json"]
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(file), *options]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return Answer((), dict.fromkeys(versions, f"no answer within {SECONDS} s"))
    return read_answer(done.stdout, done.stderr, versions)


def read_answer(output: str, errors: str, versions: Mapping[str, str]) -> Answer:
    """What pip-audit found, from its JSON; whatever is not answered for was not asked."""
    try:
        dependencies = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = errors.strip().splitlines()[-1:] or ["pip-audit said nothing"]
        return Answer((), dict.fromkeys(versions, last[0][:300]))
    not_asked = dict.fromkeys(versions, "not in the answer")
    vulnerable = []
    for one in dependencies:
        name = one["name"]
        not_asked.pop(name, None)
        if "skip_reason" in one:
            not_asked[name] = one["skip_reason"]
        for found in one.get("vulns", ()):
            fixed = ", ".join(found.get("fix_versions", ())) or "nothing yet"
            vulnerable.append(f"{name} {one['version']}: {found['id']}, fixed in {fixed}")
    return Answer(tuple(vulnerable), not_asked)
