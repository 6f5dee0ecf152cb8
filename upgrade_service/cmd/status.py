"""upgrade-service-status: `upgrade check`, before this service itself is upgraded."""

import sys

from upgrade_service.cmd import prepare

prepare()

from oslo_config import cfg
from oslo_upgradecheck import upgradecheck

from upgrade_service import conf as options
from upgrade_service import (
    exception,
    keys,
)
from upgrade_service.db import api as db
from upgrade_service.db import migration


class Checks(upgradecheck.UpgradeCommands):
    """What must be so before the new version starts."""

    def _check_schema(self) -> upgradecheck.Result:
        db.configure(cfg.CONF)
        if migration.is_current():
            return upgradecheck.Result(upgradecheck.Code.SUCCESS)
        return upgradecheck.Result(
            upgradecheck.Code.FAILURE, 'run: upgrade-service-manage db upgrade --expand'
        )

    def _check_keys(self) -> upgradecheck.Result:
        try:
            keys.signer(cfg.CONF)
        except exception.Untrusted as e:
            return upgradecheck.Result(upgradecheck.Code.FAILURE, str(e))
        return upgradecheck.Result(upgradecheck.Code.SUCCESS)

    _upgrade_checks = (('Database schema', _check_schema), ('Signing key', _check_keys))


def main() -> int:
    """Run the checks: 0 good, 1 warnings, 2 failures, 255 the check itself broke."""
    options.register_opts(cfg.CONF)
    code: int = upgradecheck.main(cfg.CONF, 'upgrade-service', Checks())
    return code


if __name__ == '__main__':
    sys.exit(main())
