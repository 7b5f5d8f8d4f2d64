"""EIGEN in JAX: networks evolved from scratch by succession, extinction, mimicry and duplication."""

__version__ = "0.1.0"
