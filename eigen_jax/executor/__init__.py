"""Where and how individuals are trained: a job in, an outcome out.

A job says everything that its outcome depends on, but where and in which order jobs run. One that fails says why;
it never takes the search with it. It writes to its individual's folder alone: the record is the driver's.
"""

from eigen_jax.executor.interface import Executor, ExecutorError, Inheritance, Job, JobProgress, Outcome
from eigen_jax.executor.pool import PoolExecutor
from eigen_jax.executor.processes import ProcessWorkers
from eigen_jax.executor.session import InlineExecutor, run_job
