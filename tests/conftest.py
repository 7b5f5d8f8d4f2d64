"""What every test runs under: strict promotion, and the real CIFAR sample where it is at hand."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import hypothesis
import jax
import pytest

ROOT = Path(__file__).resolve().parents[1]
COMPILED = ROOT / ".pytest_cache" / "compiled"
MOST_BYTES = 1 << 28


def set_jax(name: str, value: str | int | bool) -> None:
    """Sets an option of JAX in this process and in those that it starts."""
    jax.config.update(f"jax_{name}", value)
    os.environ[f"JAX_{name.upper()}"] = str(value)


# Tests compile the same programs over and over, in this process, in those of pytest-xdist, in those
# that tests start, and in the next run: all find them in one folder.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    if COMPILED.is_dir() and sum(program.stat().st_size for program in COMPILED.iterdir()) > MOST_BYTES:
        shutil.rmtree(COMPILED)
    set_jax("compilation_cache_dir", str(COMPILED))
    set_jax("persistent_cache_min_compile_time_secs", 0)

# A shell lets what it runs in the background ignore Ctrl-C, which some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Silent promotion hides dtype and broadcasting mistakes, so the library must not need any.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The first example of a property compiles, which no deadline allows for. CI draws the same
# examples every time, so that a failure there is one of the change under test. A test that needs
# more or fewer examples asks for a share of the profile's, so that `make test` draws fewer of all.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=20)
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure(config: pytest.Config) -> None:
    """In `make test`, compiles programs fast and not well; in `make test-all`, as users' are."""
    if config.getoption("hypothesis_profile") == "quick":
        set_jax("disable_most_optimizations", True)
        if jax.__version_info__ < (0, 12):  # which knows the flag no more
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chains",
        type=int,
        default=300,
        help="random genomes that the tests of mutation and of duplication check on top",
    )


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is of a user without a name and without a home folder, as in many a container."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", Mock(side_effect=KeyError("uid not found")))


MAKE_CIFAR = ROOT.parent / "shared" / "data" / "make_cifar.py"


@pytest.fixture(scope="session")
def cifar_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with real CIFAR-10 and CIFAR-100 images as the official archives unpack.

    Each set has 5,000 train and 1,000 test images, in `cifar-10-batches-py/` and
    `cifar-100-python/`. The tests that write into it must copy it first.
    """
    if not MAKE_CIFAR.is_file():
        pytest.skip(f"the CIFAR sample is not beside this repository: no {MAKE_CIFAR}")
    folder = tmp_path_factory.mktemp("cifar")
    subprocess.run([sys.executable, str(MAKE_CIFAR), "sample", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder
