"""Kernels of `topk_candidates` and what launches them. Importing a file of this folder imports Triton."""
