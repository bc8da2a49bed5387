"""Kernels of `kv_gather` and what launches them. Importing a file of this folder imports Triton."""
