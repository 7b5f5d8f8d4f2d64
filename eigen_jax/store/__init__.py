"""What lies on disk: files written whole, locks, digests, checkpoints, and the readers and writers of JSON files.

Knows nothing of what is kept, and imports nothing of eigen_jax but its errors.
"""
