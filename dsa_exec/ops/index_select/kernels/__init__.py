"""Kernels of `index_select` that score and select in one. Importing a file of this folder imports Triton."""
