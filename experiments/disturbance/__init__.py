"""Runs that are disturbed again and again: when, where they stood, and whether they came out the same."""
