"""The experiments of the paper: the runs that each needs, shared between them, and what is told of them."""
