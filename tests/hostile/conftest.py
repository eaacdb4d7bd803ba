"""The modules of the campaign are plain modules beside these tests: importlib mode leaves sys.path alone."""

import sys
from pathlib import Path

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)
