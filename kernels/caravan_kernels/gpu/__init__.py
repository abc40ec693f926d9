"""The kernels in Triton. Imported only where a tensor is on a GPU, and by tests."""
