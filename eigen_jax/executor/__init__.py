"""Where and how individuals are trained: a job in, an outcome out.

A job says everything that its outcome depends on, so an outcome does not depend on where or in
which order jobs ran. A job that fails says why; it never takes the search with it. Only its
individual's folder is written by a job: the record of the search is the driver's alone.
"""

from eigen_jax.executor.interface import Executor, ExecutorError, Job, JobProgress, Outcome
from eigen_jax.executor.pool import PoolExecutor
from eigen_jax.executor.processes import ProcessWorkers
from eigen_jax.executor.session import InlineExecutor, run_job
