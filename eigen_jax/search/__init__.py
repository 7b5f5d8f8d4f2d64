"""The host loop of a search: phases, generations, the run folder, continuing."""

from eigen_jax.search.config import SearchConfig, SearchConfigError
from eigen_jax.search.folder import RunFolder, RunFolderError, load_network
from eigen_jax.search.loop import run_search
from eigen_jax.search.observer import SearchObserver, SearchResult

__all__ = [
    "RunFolder",
    "RunFolderError",
    "SearchConfig",
    "SearchConfigError",
    "SearchObserver",
    "SearchResult",
    "load_network",
    "run_search",
]
