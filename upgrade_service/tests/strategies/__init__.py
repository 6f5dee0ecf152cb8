"""Strategies and inventories against the real programs; see tools/run_tests.sh strategies."""
