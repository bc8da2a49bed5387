"""Kernels of `index_quant` and what launches them. Importing a file of this folder imports Triton."""
