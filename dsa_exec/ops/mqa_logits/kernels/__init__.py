"""Kernels of `mqa_logits` and what launches them. Importing one imports Triton."""
