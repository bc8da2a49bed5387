"""Kernels of `topk_merge` and what launches them. Importing a file of this folder imports Triton."""
