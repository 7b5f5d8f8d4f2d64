"""The layering of eigen_jax: who may import whom, and what nobody may do.

The checks read the source (its syntax tree) and import nothing, so that an import inside of a
function counts like one at the top; but for the module of a layer kind, which imports Flax when it is made.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for package in ("eigen_jax", "experiments") for path in (ROOT / package).rglob("*.py"))

# What each module of eigen_jax may import of eigen_jax. A folder counts as one module.
MAY_IMPORT: dict[str, set[str]] = {
    "store": set(),
    "layer_kinds": set(),
    "genome": {"layer_kinds"},
    "mutation": {"genome", "layer_kinds"},
    "duplication": {"genome"},
    "fitness": {"store"},
    "strategies": {"genome", "mutation", "duplication", "architecture"},
    "architecture": {"layer_kinds", "genome", "store"},
    "platforms": set(),
    "surroundings": set(),
    "layers": {"platforms"},
    "builder": {"layer_kinds", "architecture", "layers"},
    "data": {"store"},
    "processor": {"data", "store"},
    "losses": set(),
    "training": {"data", "losses", "platforms"},
    "teacher": {"data", "losses", "training", "layers", "resumable", "store", "surroundings"},
    "clock": set(),
    "resumable": {"training", "store", "clock"},
    "executor": {
        *("training", "store", "builder", "architecture", "resumable", "clock", "platforms", "surroundings"),
        "fitness",
    },
    "lineage": {"architecture", "fitness", "store"},
    "report": {"lineage", "architecture", "layer_kinds", "store", "fitness", "strategies"},
}
MAY_IMPORT["baselines"] = {"layers", "data", "training", "teacher"}
MAY_IMPORT["networks"] = {"architecture", "builder", "baselines", "layers", "store"}
MAY_IMPORT["search"] = set(MAY_IMPORT) - {"report"}
MAY_IMPORT["export"] = {
    *("layer_kinds", "architecture", "builder", "networks", "data", "processor", "training", "platforms", "store"),
}
MAY_IMPORT["__init__"] = set(MAY_IMPORT)

# What every module may import, and what imports nothing itself.
FOUNDATIONS = ("errors", "version", "config", "registry")
MAY_IMPORT |= {name: set() for name in FOUNDATIONS}

# The evolution arm is array code: flax.struct is all that it knows of Flax.
EVOLUTION_ARM = {"layer_kinds", "genome", "mutation", "duplication", "strategies"}
TRAINING_LIBRARIES = ("flax.linen", "flax.nnx", "flax.training", "optax", "orbax")

# What a record of a layer kind imports where its module is made, within a function.
BUILDING = ("eigen_jax.layers", "flax.linen")

# Each runs, or hides, code in the file that it reads.
PICKLES = ("pickle", "_pickle", "pickletools", "cloudpickle", "dill", "joblib", "marshal", "shelve")

GLOBAL_SETTINGS = (
    *("jax.config.", "jax.experimental.compilation_cache.", "os.environ[", "os.putenv(", "os.unsetenv("),
    *("os.environ.setdefault(", "os.environ.update(", "os.environ.pop("),
)


def module_of(path: Path) -> tuple[str, ...]:
    """The dotted name of a source file as its parts, `__init__` included."""
    return path.relative_to(ROOT).with_suffix("").parts


def imported(tree: ast.AST, module: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yields (dotted name, local name) of everything that a module imports, relative names resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.partition(".")[0]
                yield alias.name, local
        elif isinstance(node, ast.ImportFrom):
            package = list(module[: len(module) - node.level]) if node.level else []
            base = ".".join(package + ([node.module] if node.module else []))
            for alias in node.names:
                yield f"{base}.{alias.name}", alias.asname or alias.name
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            name = node.args[0] if node.args else None
            yield (str(name.value) if isinstance(name, ast.Constant) else "<computed>"), ""


def is_within(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of these packages, or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def import_violations(names: list[str], module: tuple[str, ...]) -> Iterator[str]:
    """Yields what is wrong with the imports of one module."""
    inside = module[0] == "eigen_jax"
    own = module[1]
    for name in names:
        parts = name.split(".")
        if is_within(name, ("tensorflow",)):
            yield "imports TensorFlow"
        if is_within(name, PICKLES) and not (inside and own == "data"):
            yield f"imports {name}, which only data may"
        if not inside:
            continue
        if own in EVOLUTION_ARM and is_within(name, TRAINING_LIBRARIES):
            yield f"{own} imports {name}, of the training arm"
        if parts[0] in ("experiments", "tests") or name == "<computed>":
            yield f"{own} imports {name}"
        if parts[0] == "eigen_jax":
            other = parts[1] if len(parts) > 1 else "__init__"
            if other not in (own, *FOUNDATIONS, *MAY_IMPORT[own]):
                yield f"{own} imports {other}"


def settings_violations(tree: ast.AST, origins: dict[str, str]) -> Iterator[str]:
    """Yields each place where global settings are changed; `origins` maps local names to dotted names."""

    def resolved(node: ast.AST) -> str:
        head, dot, rest = ast.unparse(node).partition(".")
        head, bracket, index = head.partition("[")
        return origins.get(head, head) + bracket + index + dot + rest

    for node in ast.walk(tree):
        changed: list[str] = []
        if isinstance(node, ast.Call):
            changed = [resolved(node.func) + "("]
            allowed = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "allow_pickle"]
            if allowed not in ([], ["False"]):
                yield f"allows pickles: {ast.unparse(node)}"
        elif isinstance(node, ast.Assign | ast.Delete):
            changed = [resolved(target) for target in node.targets]
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            changed = [resolved(node.target)]
        for name in changed:
            if name.startswith(GLOBAL_SETTINGS):
                yield f"changes the global setting {name}: {ast.unparse(node)}"


def violations(source: str, module: tuple[str, ...]) -> list[str]:
    """Everything in one source file that the layering forbids."""
    tree = ast.parse(source)
    imports = list(imported(tree, module))
    found: list[str] = []
    if module[0] == "eigen_jax":
        if module[1] not in MAY_IMPORT:
            return [f"{module[1]} is not in the table"]
        # `import jax.numpy` binds `jax`, not `jax.numpy`.
        origins = {local: local if name.startswith(f"{local}.") else name for name, local in imports}
        found += settings_violations(tree, origins)
    names = Counter(name for name, _ in imports)
    if module[:2] == ("eigen_jax", "layer_kinds"):
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        within = Counter(name for function in functions for name, _ in imported(function, module))
        names -= Counter({name: count for name, count in within.items() if is_within(name, BUILDING)})
    return found + list(import_violations(list(names), module))


def test_the_sources_are_found() -> None:
    assert {("eigen_jax", "duplication"), ("experiments", "digits")} <= {module_of(path) for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(module_of(path)))
def test_source_keeps_the_layering(path: Path) -> None:
    assert violations(path.read_text(), module_of(path)) == []


def test_the_table_has_no_cycle() -> None:
    reached: set[str] = set()
    while len(reached) < len(MAY_IMPORT):
        free = {name for name, others in MAY_IMPORT.items() if others <= reached} - reached
        assert free, f"a cycle among {set(MAY_IMPORT) - reached}"
        reached |= free


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("eigen_jax.genome", "from eigen_jax import mutation"),
        ("eigen_jax.genome", "from .mutation import mutate"),
        ("eigen_jax.genome", "def f():\n    from eigen_jax import search"),
        ("eigen_jax.genome", "import importlib\nimportlib.import_module('eigen_jax.search')"),
        ("eigen_jax.genome", "import importlib\nimportlib.import_module(name)"),
        ("eigen_jax.builder", "import eigen_jax"),
        ("eigen_jax.data.sources", "from ..losses import cross_entropy"),
        ("eigen_jax.search", "import experiments.digits"),
        ("eigen_jax.utilities", "x = 1"),
        ("eigen_jax.genome", "from flax import linen"),
        ("eigen_jax.layer_kinds.add", "from flax import linen\ndef f():\n    from flax import linen"),
        ("eigen_jax.layer_kinds.add", "from eigen_jax.layers import Conv"),
        ("eigen_jax.layer_kinds.add", "def f():\n    import optax"),
        ("experiments.digits", "from tensorflow.io import gfile"),
        ("experiments.digits", "from pickle import loads"),
        ("eigen_jax.data", "import numpy as np\nnp.load(path, allow_pickle=True)"),
        ("eigen_jax.training", "from jax import config as settings\nsettings.update('jax_enable_x64', True)"),
        ("eigen_jax.training", "import jax.numpy as jnp\nimport jax.numpy\njax.config.jax_enable_x64 = True"),
        ("eigen_jax.training", "import os\ndel os.environ['XLA_FLAGS']"),
        ("eigen_jax.training", "import os\nos.environ['XLA_FLAGS'] += ' --x'"),
        ("eigen_jax.training", "from os import environ\nenviron.setdefault('XLA_FLAGS', '')"),
    ],
)
def test_a_violation_is_found(module: str, source: str) -> None:
    assert len(violations(source, tuple(module.split(".")))) == 1
