"""Llama 4 in PyTorch, tensor-parallel, over paged caches."""
