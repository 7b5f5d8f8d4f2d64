"""Figure 2: a network before and after gene duplication.

    python -m experiments.figure2 --dataset digits

It is the best duplicate of the first seed that has one, over the network whose blocks it repeats; the
text beside it says whether it is the network found. Without any duplicate, within the bounds on size,
nothing is drawn, and the exit code is 2.

Cost: the searches of Table 1.
"""

import sys

from experiments.paper.command import main

if __name__ == "__main__":
    sys.exit(main(["figure2"], __doc__))
