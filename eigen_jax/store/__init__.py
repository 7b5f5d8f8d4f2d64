"""What lies on disk: files written whole, locks, digests, checkpoints, and the readers and writers of JSON files."""
