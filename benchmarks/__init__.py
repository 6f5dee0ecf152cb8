"""Benchmarks: the product beside a peer, in one run. Usage: python -m benchmarks.NAME."""
