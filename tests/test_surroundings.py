"""What numbers depend on: told of this process, compared, and handed on to others."""

import json
import os
import subprocess
import sys

import jax

from eigen_jax import surroundings
from eigen_jax.executor.processes import python_path


def test_flags_are_told_without_the_number_of_simulated_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", " --xla_force_host_platform_device_count=8  --xla_cpu_enable_fast_math=true")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    switches = surroundings.describe()["switches"]
    assert (switches["XLA_FLAGS"], switches["NVIDIA_TF32_OVERRIDE"]) == ("--xla_cpu_enable_fast_math=true", "0")


def test_every_option_is_told_that_this_jax_has():
    switches = surroundings.describe()["switches"]
    assert {name.upper() for name in surroundings._OPTIONS if name in jax.config.values} <= switches.keys()
    assert {name.upper() for name in surroundings._OPTIONS[:10]} <= switches.keys()


def test_a_process_that_is_started_with_the_environment_has_the_switches_of_this_one_whatever_its_own_are():
    with (
        jax.default_prng_impl("rbg"),
        jax.threefry_partitionable(False),
        jax.default_matmul_precision("highest"),
        jax.enable_x64(True),
    ):
        ours, handed_on = surroundings.describe()["switches"], surroundings.environment()
    program = "import json; from eigen_jax import surroundings; print(json.dumps(surroundings.describe()['switches']))"
    others = {"JAX_DEFAULT_PRNG_IMPL": "unsafe_rbg", "JAX_RANDOM_SEED_OFFSET": "3"}
    environment = {**os.environ, **python_path(), **others, **handed_on}
    shown = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True).stdout
    assert json.loads(shown) == ours
    assert (ours["JAX_DEFAULT_PRNG_IMPL"], ours["JAX_ENABLE_X64"]) == ("rbg", "True")
