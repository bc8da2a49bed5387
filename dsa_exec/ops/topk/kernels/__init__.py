"""Kernels of `topk` and what launches them. Importing a file of this folder imports Triton."""
