"""Vendor libraries as they look from outside: signatures, checks and results, computed in torch."""
