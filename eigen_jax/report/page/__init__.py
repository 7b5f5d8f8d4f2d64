"""A page that shows runs: one HTML file that holds all that it needs, and asks no network for anything.

`make_page` tells of one run, `make_comparison` of several; `make_live` makes one of them follow a server. Python writes
text and tables; what a script of the page draws (curves, the family tree, networks) it draws of the data in the page,
to the width at hand.
"""

from eigen_jax.report.page.comparison import make_comparison
from eigen_jax.report.page.html import make_live, make_notice
from eigen_jax.report.page.mistakes import Mistake, find_mistakes
from eigen_jax.report.page.run import Run
from eigen_jax.report.page.single import make_page
