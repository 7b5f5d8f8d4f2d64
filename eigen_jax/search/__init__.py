"""The host loop of a search: phases, generations, the run folder, continuing."""

from eigen_jax.resumable import Care
from eigen_jax.search.budget import Budget, BudgetError, TeacherFlops, check_budget, price, training_flops
from eigen_jax.search.config import FinalOn, SearchConfig
from eigen_jax.search.final import Evaluation, FinalTrainingError, TrainedNetwork, evaluate_network, train_network
from eigen_jax.search.folder import RunFolder, check_run_folder, load_network, read_genome
from eigen_jax.search.logs import LOGS, CSVLog, Log, LogError, TensorBoardLog
from eigen_jax.search.loop import BarrenSearchError, check_data, run_search
from eigen_jax.search.observer import Observers, SearchObserver
from eigen_jax.search.results import SearchResult, describe_training, sum_flops
from eigen_jax.search.states import name_of_strategy
from eigen_jax.store.run_files import RunFolderError
