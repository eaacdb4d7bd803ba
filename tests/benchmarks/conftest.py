"""The benchmarks are a package beside `tests`; it comes last on the path, so that nothing else is found through it."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
