"""Caches: a tensor and its layout, decided together at allocation and never asked of a setting again."""
