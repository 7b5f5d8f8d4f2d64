"""Whether there is going to be a GPU, told before JAX looks for its devices."""

import importlib.metadata
import importlib.util
from typing import Any

import jax
import pytest

from eigen_jax import platforms

DRIVER, PLUGIN = True, True


@pytest.mark.parametrize(
    ("driver", "plugin", "variables", "found"),
    [
        (DRIVER, PLUGIN, {}, True),
        (False, PLUGIN, {}, False),
        (DRIVER, False, {}, False),
        (DRIVER, PLUGIN, {"CUDA_VISIBLE_DEVICES": ""}, False),
        (DRIVER, PLUGIN, {"CUDA_VISIBLE_DEVICES": "-1"}, False),
        (DRIVER, PLUGIN, {"CUDA_VISIBLE_DEVICES": "3"}, True),
        (DRIVER, PLUGIN, {"JAX_PLATFORM_NAME": "cpu"}, False),
        (DRIVER, PLUGIN, {"JAX_PLATFORMS": "cpu"}, False),
        (DRIVER, PLUGIN, {"JAX_PLATFORMS": "cuda,cpu"}, True),
    ],
)
def test_a_gpu_needs_a_driver_a_plugin_and_nothing_that_hides_it(
    monkeypatch, tmp_path, driver, plugin, variables, found
):
    device = tmp_path / "nvidiactl"
    if driver:
        device.touch()
    monkeypatch.setattr(platforms, "_GPUS", (str(tmp_path / "kfd"), str(device)))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ["xla_cuda12"] if plugin else [])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORM_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # JAX has read its own variable at the start of the process.
    before: Any = jax.config.values["jax_platforms"]
    jax.config.update("jax_platforms", variables.get("JAX_PLATFORMS"))
    try:
        assert platforms.finds_gpu() == found
    finally:
        jax.config.update("jax_platforms", before)
