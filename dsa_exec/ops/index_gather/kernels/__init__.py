"""Kernels of `index_gather` and what launches them. Importing a file of this folder imports Triton."""
