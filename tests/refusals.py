"""Errors of one line, to the letter."""

import re
from contextlib import AbstractContextManager
from typing import Any

import pytest


def refuses(kind: type[Exception], line: str) -> AbstractContextManager[Any]:
    """Checks, as a context, that an error of this kind is raised and says exactly this."""
    return pytest.raises(kind, match=rf"\A{re.escape(line)}\Z")
