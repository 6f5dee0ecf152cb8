"""The service under faults: real processes, a real MariaDB and a real RabbitMQ.

A run carries an upgrade of simulated hosts out while processes are killed, frozen and restarted
and messages are lost. What really happened is written down by the *workload*: every action
appends a line when it begins and one when it ends, the simulated cloud logs what it was asked,
clients log what they were told, and whoever does harm logs that too. :mod:`checker` reads only
these and the rows in the end, and says which invariant of I1 to I12 does not hold.

    python -m upgrade_service.tests.chaos --help
"""
