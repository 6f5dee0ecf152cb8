"""Benchmarks: the product beside a peer, in one run; see doc/source/contributor/benchmarks.rst."""
