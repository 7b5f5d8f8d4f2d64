"""Teachers whom students mimic: ensembles of any Flax modules, and logits that were computed before.

`train_ensemble` makes the paper's, four Wide-DenseNet-BC (Section 4.1); `make_ensemble` takes trained modules. Asked
live, one costs a forward pass of every member a step; `cache_logits` asks it once for every view of every image.
"""

from eigen_jax.teacher.cache import Questions, cache_logits, seconds_of_logits
from eigen_jax.teacher.config import TeacherConfig, TeacherError
from eigen_jax.teacher.densenet import DenseNet
from eigen_jax.teacher.ensemble import Ensemble, check_fits, make_ensemble
from eigen_jax.teacher.fitting import TeacherObserver, forward_flops, load_ensemble, train_ensemble
from eigen_jax.teacher.logits import CachedLogits, LogitsLayout, MappedLogits, ViewSet, read_logits
from eigen_jax.teacher.record import DataRecord, EnsembleRecord, MemberRecord, TeacherRecord, read_teacher
