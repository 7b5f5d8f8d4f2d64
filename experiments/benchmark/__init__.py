"""Measures what a search waits for, beside PyTorch where that is installed.

    python -m experiments.benchmark                         # everything
    python -m experiments.benchmark --quick                 # a first look: two minutes on two cores
    python -m experiments.benchmark --only steps parts      # some groups of rows
    python -m experiments.benchmark --json benchmark.json   # the same numbers for programs
    python -m experiments.benchmark --search runs/digits-small   # how much of a finished run was training

Times and rates are medians of calls after the first; what is compared is called in turns. Run it on
an otherwise idle machine.
"""
