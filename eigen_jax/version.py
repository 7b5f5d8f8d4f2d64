"""The version of eigen_jax, where every module can read it."""

__version__ = "0.1.0"
