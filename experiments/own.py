"""Functions of the user's own, from their files."""

import importlib
import sys
from pathlib import Path
from typing import Any


def load(text: str, what: str) -> Any:
    """What "FILE.py:NAME" names."""
    del what
    file, _, name = text.rpartition(":")
    sys.path.insert(0, str(Path(file).absolute().parent))
    return getattr(importlib.import_module(Path(file).stem), name)
