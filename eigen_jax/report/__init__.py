"""What a search did, for people: tables, plots and drawings of records and networks.

Nothing here runs anything. Tables are values until they are written as CSV and Markdown, figures are
matplotlib's until they are saved as PNG and SVG, and neither touches a setting of matplotlib.
"""

from eigen_jax.report.drawing import draw_architecture, draw_duplication
from eigen_jax.report.figures import mean_and_deviation, pareto_front, plot_pareto, plot_progress, plot_step_sizes
from eigen_jax.report.files import ReportError
from eigen_jax.report.landmarks import RANKS, study_landmarks
from eigen_jax.report.style import save_figure
from eigen_jax.report.summary import (
    PhaseSummary,
    best_so_far,
    find_individual,
    fittest,
    is_duplicate,
    read_record,
    read_result,
    summarise_phases,
)
from eigen_jax.report.tables import (
    NOT_COMPARABLE,
    NOT_MEASURED,
    NOTHING,
    Cell,
    Column,
    Counted,
    Measured,
    Quoted,
    Shared,
    Table,
    Unit,
    csv_text,
    format_parameters,
    gain,
    measured,
    paper_cell,
    provenance_notes,
    to_csv,
    to_markdown,
    write_table,
)
