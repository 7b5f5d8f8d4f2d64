"""Whether there is going to be a GPU, told before JAX looks for its devices; the program that one would get."""

import functools
import importlib.metadata
import importlib.util
import os
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from layer_data import concat, conv, network, pool

from eigen_jax import platforms
from eigen_jax.architecture import IMAGE
from eigen_jax.builder import build_network
from eigen_jax.training import Batch, TrainConfig
from eigen_jax.training.step import abstract_state, train_steps

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


def test_the_training_of_a_gpu_is_lowered_without_host_copies_or_transpositions_of_maps(monkeypatch):
    """No GPU is needed for that: what XLA gets says where bytes go, if not how fast."""
    monkeypatch.setattr(platforms, "current", lambda: platforms.GPU)
    layers = conv(IMAGE, 4), conv(0, 6, stride=2), conv(0, 6, kernel=1, stride=2), concat(1, 2), pool(3), conv(4, 8)
    module = build_network(network(*layers, input_shape=(8, 8, 3)), num_classes=10, dtype=jnp.bfloat16)
    config, steps = TrainConfig(batch_size=2, dtype="bfloat16"), platforms.GPU.steps_per_call
    state = abstract_state(network=module, config=config, input_shape=(8, 8, 3))
    batches = Batch(images=jnp.zeros((steps, 2, 8, 8, 3)), labels=jnp.zeros((steps, 2), jnp.int32))
    train = jax.jit(functools.partial(train_steps, network=module, config=config), donate_argnums=0)
    program = train.trace(state, batches).lower(lowering_platforms=("cuda",)).as_text()
    assert f"dense<{steps}> : tensor<i32>" in program, "all steps are one loop"
    assert program.count("stablehlo.while") == 1
    for host in ("custom_call", "infeed", "outfeed", "stablehlo.send", "stablehlo.recv", "callback"):
        assert host not in program
    donated = program.count("tf.aliasing_output") + program.count("jax.buffer_donor")
    assert donated == len(jax.tree.leaves(state)), "the new state lies where the old one lay"
    convolutions = [line for line in program.splitlines() if "stablehlo.convolution" in line]
    assert len(convolutions) == 3 * 4 - 1, "forward and two gradients each, but for the gradient of the images"
    for line in convolutions:
        operands, result = line.rsplit(" : ", 1)[1].split(" -> ")
        assert set(re.findall(r"x(bf16|f32)>", operands + result)) == {"bf16"}
    moved = [line for line in program.splitlines() if "stablehlo.transpose" in line]
    assert all(re.search(r"tensor<\d+x\d+xf32>$", line.strip()) for line in moved), "the classifier's matrix alone"


WHOLE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("told", "files", "expected"),
    [
        (None, {}, WHOLE),
        ("0::/\n", {"memory.max": "max\n"}, WHOLE),
        ("0::/slice/unit\n", {"slice/memory.max": "5000000\n", "slice/unit/memory.max": "max\n"}, 5_000_000),
        ("0::/slice/unit\n", {"slice/memory.max": "5000000\n", "slice/unit/memory.max": "4000000\n"}, 4_000_000),
        # Of a container, whose own group is the root that it sees.
        ("0::/outside/container\n", {"memory.max": "3000000\n"}, 3_000_000),
        ("5:cpu:/\n4:memory:/unit\n", {"memory/unit/memory.limit_in_bytes": "2000000\n"}, 2_000_000),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, WHOLE),
    ],
)
def test_memory_is_what_the_machine_has_or_the_control_group_may_take(monkeypatch, tmp_path, told, files, expected):
    listing = tmp_path / "cgroup"
    if told is not None:
        listing.write_text(told)
    for name, content in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(content)
    monkeypatch.setattr(platforms, "_OWN_CGROUPS", listing)
    monkeypatch.setattr(platforms, "_CGROUPS", tmp_path / "groups")
    assert platforms.memory() == expected
