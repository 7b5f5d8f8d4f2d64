"""The version of eigen_jax, where every module can read it."""

__version__ = "0.2.0"
