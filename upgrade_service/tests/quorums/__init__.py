"""Real quorums on loopback: tier `quorums` of tools/run_tests.sh."""
