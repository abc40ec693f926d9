"""The CPU path where it is hot: small-batch matmuls and attention over pages, through numba."""
