"""The made-up histories of the unit tier, on the databases of deployments."""

from upgrade_service.tests.functional import test_database
from upgrade_service.tests.unit.model import test_machine


class TestMachineOnMySQL(test_database.OnServer, test_machine.TestMachine):
    dialect = 'mysql'
