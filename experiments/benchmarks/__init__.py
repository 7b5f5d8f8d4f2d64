"""What `experiments.benchmark` measures: a module for each group of rows, and what they share."""
