"""Disturbs searches at random moments, again and again, and shows that all come out as an undisturbed one.

    python -m experiments.chaos                                        # 50 kills of whole runs
    python -m experiments.chaos --kills 200 --seed 1 --executor processes --workers 2
    python -m experiments.chaos --victim worker --executor ray         # kills workers; the run goes on by itself
    python -m experiments.chaos --disturbance stop --kills 20          # SIGSTOP, and SIGCONT after some seconds
    python -m experiments.chaos --disturbance terminal --kills 20      # closes the terminal that the run is on

Runs a whole search on the digits, teacher and final training included, twice undisturbed. Then
begins further ones, kills each with SIGKILL (or disturbs it otherwise), and gives the same command
again where that has ended it, until it ends by itself. Exit code 0: all lineages, results and
networks are equal, times apart, and nothing half-written was left. Exit code 1: one is not, and a
line says what.
"""
