"""Compiled programs of pure functions, of which only the newest are held."""

import functools
from collections.abc import Callable
from typing import Any

import jax

# A compiled CPU program holds some 300 of a process's 65,530 memory maps, and a search compiles
# hundreds: only the newest are kept, where jit's own cache would keep them all. They must be enough
# for a generation, whose networks train in turns: two programs each, one to train, one to evaluate.
COMPILED_KEPT = 48


def compiled(function: Callable, arguments: tuple, *, donate: tuple[int, ...] = (), **statics: Any) -> Callable:
    """The program of a pure function for arguments of these shapes on these devices, compiled once."""
    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) for leaf in leaves)
    return _compile(function, structure, shapes, donate, tuple(statics.items()))


@functools.lru_cache(maxsize=COMPILED_KEPT)
def _compile(function: Callable, structure: Any, shapes: tuple, donate: tuple[int, ...], statics: tuple) -> Callable:
    # A partial of its own for each program: what jit remembers goes when the function goes.
    program = jax.jit(functools.partial(function, **dict(statics)), donate_argnums=donate)
    return program.lower(*jax.tree.unflatten(structure, shapes)).compile()
