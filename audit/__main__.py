"""`python -m audit`: the dependency audit. `--sbom FILE` writes the bill of materials instead.

Exit status: 0 when all is well, 1 when something is wrong, 3 when nothing is but advisories could not be asked for.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from audit.checks import offline_problems
from audit.installed import closure, distribution, licence, record_hash
from audit.project import RUNTIME, Declared
from audit.sbom import write
from audit.vulnerabilities import Answer, ask

WELL, WRONG, NOT_ASKED = 0, 1, 3


def status(problems: list[str], answer: Answer) -> int:
    """The exit status of an audit."""
    if problems or answer.vulnerable:
        return WRONG
    return NOT_ASKED if answer.not_asked else WELL


def main() -> int:
    """Audit, or write the bill of materials; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m audit", description=__doc__.partition("\n")[0])
    parser.add_argument("--sbom", type=Path, metavar="FILE", help="write the bill of materials and do nothing else")
    options = parser.parse_args()
    declared = Declared.read()
    if options.sbom:
        write(declared, options.sbom)
        print(options.sbom)
        return WELL
    versions = {}
    for name in sorted(closure(declared.extras[RUNTIME])):
        found = distribution(name)
        assert found is not None
        versions[name] = found.version
        print(f"{name:28}{found.version:16}{licence(found):56}sha256:{record_hash(found)[:16]}")
    problems = offline_problems(declared)
    answer = ask(versions)
    for line in (*problems, *answer.vulnerable):
        print(f"WRONG: {line}")
    if answer.not_asked:
        name, reason = next(iter(answer.not_asked.items()))
        print(f"NOT ASKED: advisories for {len(answer.not_asked)} of {len(versions)} ({name}: {reason})")
    found_status = status(problems, answer)
    words = {
        WELL: "all is well",
        WRONG: "look at the lines above",
        NOT_ASKED: "offline checks passed, advisories unknown",
    }
    print(words[found_status])
    return found_status


if __name__ == "__main__":
    sys.exit(main())
