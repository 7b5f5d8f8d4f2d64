"""Whether memory stays flat over many architectures.

    python -m experiments.benchmarks.memory 300

Trains that many different small networks for a few steps each, as a search does, and prints the
resident memory after 30 and at the end as JSON. `experiments.benchmark` runs it in a process of its
own, where nothing else has used memory before.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from eigen_jax.architecture import Architecture, decode
from eigen_jax.data import Dataset
from eigen_jax.executor import InlineExecutor, Job
from eigen_jax.genome import GenomeSpec, minimal_genome
from eigen_jax.mutation import mutate
from eigen_jax.training import TrainConfig
from experiments.allocator import keep_freed_memory
from experiments.benchmarks.measuring import NotMeasured, Row, not_measured, one_line
from experiments.command_line import Parser, positive
from experiments.runner import BAD_INPUT, INTERRUPTED
from experiments.settings import SettingsError

GROUP = "memory"
EARLY = 30  # networks after which memory is read first

_STATM = Path("/proc/self/statm")
_SPEC = GenomeSpec(capacity=32, channels=(4, 8, 16), input_shape=(8, 8, 1))
_CONFIG = TrainConfig(batch_size=8, learning_rate=0.05, decay_steps=(), pad=1, flip=False, eval_batch_size=8)
_STEPS = 3  # of training, of each network
_MUTATIONS = 10
_BRED = 64  # children a call


def measure_memory(count: int) -> Row:
    """Resident memory over `count` architectures, in a process of its own."""
    what = f"{count:,} different networks, {_STEPS} steps each"
    command = [sys.executable, "-m", "experiments.benchmarks.memory", str(count)]
    # What it says of its progress goes where this process says its own.
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        reason = f"the process that trains them ended with code {done.returncode}"
        return not_measured(reason, group=GROUP, what=what)
    mib = json.loads(done.stdout)
    early, end = mib["early"], mib["end"]
    return Row(group=GROUP, what=what, values={"mib_early": early, "mib": end, "times_early": end / early})


def train_networks(count: int) -> dict[str, float]:
    """Trains networks one after another, and gives the MiB in use after `EARLY` and after `count` of them.

    Raises:
        NotMeasured: this system does not tell a process its memory.
    """
    _resident_mib()
    executor = InlineExecutor(_noise())
    early = 0.0
    for number, architecture in zip(range(1, count + 1), different_architectures(), strict=False):
        with tempfile.TemporaryDirectory() as folder:
            job = Job(
                name=str(number),
                key=jax.random.key(number),
                architecture=architecture,
                until=_STEPS,
                config=_CONFIG,
                folder=Path(folder),
            )
            [(_, outcome)] = executor.run([job])
        if outcome.cause is not None:
            raise NotMeasured(f"network {number} failed: {outcome.cause}")
        if number == min(EARLY, count):
            early = _resident_mib()
        if number % EARLY == 0:
            _report(number, count)
    return {"early": early, "end": _resident_mib()}


def different_architectures() -> Iterator[Architecture]:
    """Small networks, no two equal, the same in every process."""
    breed = jax.jit(jax.vmap(functools.partial(mutate, spec=_SPEC), (0, None, None)))
    seen = set()
    generation = 0
    while True:
        keys = jax.random.split(jax.random.key(generation), _BRED)
        genomes = jax.device_get(breed(keys, minimal_genome(_SPEC), jnp.asarray(_MUTATIONS, jnp.int32))[0])
        for child in range(_BRED):
            architecture = decode(jax.tree.map(lambda leaf, child=child: leaf[child], genomes), spec=_SPEC)
            if architecture not in seen:
                seen.add(architecture)
                yield architecture
        generation += 1


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the MiB as JSON; returns the exit code."""
    parser = Parser(prog="python -m experiments.benchmarks.memory", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("count", type=positive, metavar="N", help="networks to train")

    keep_freed_memory()
    try:
        print(json.dumps(train_networks(parser.parse_args(argv).count)))
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except NotMeasured as reason:
        print(f"error: {one_line(reason)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED  # the command that started this process says so
    return 0


def _resident_mib() -> float:
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        raise NotMeasured("resident memory is read from /proc, and there is none") from None


def _report(number: int, count: int) -> None:
    print(f"        memory: {number:,}/{count:,} networks, {_resident_mib():,.0f} MiB", file=sys.stderr, flush=True)


def _noise() -> Dataset:
    """Images of the search space's shape."""
    images = jax.random.normal(jax.random.key(0), (64, *_SPEC.input_shape))
    labels = jnp.arange(64, dtype=jnp.int32) % _SPEC.num_classes
    parts = (images, labels, images[:8], labels[:8], images[:8], labels[:8])
    return Dataset(*parts, num_classes=_SPEC.num_classes, name="", fingerprint="")


if __name__ == "__main__":
    sys.exit(main())
