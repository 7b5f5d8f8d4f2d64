"""The rivals' command, up to where what is no part of the project is needed."""

import importlib.util

import pytest
from commands_data import refused

from experiments.rivals import __main__ as rivals


@pytest.mark.parametrize(("rival", "package"), [("resnet", "torch"), ("autokeras", "autokeras")])
def test_a_rival_that_is_not_installed_gets_one_line(monkeypatch, capsys, rival, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = refused(capsys, rivals.main, rival)
    assert line == f"{package} is not installed; experiments/rivals/{rival}.py says how"
