"""Kernels of `paged_mqa_logits` and what launches them. Importing one imports Triton."""
