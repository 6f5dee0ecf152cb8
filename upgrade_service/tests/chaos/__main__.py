"""`python -m upgrade_service.tests.chaos`: see --help."""

import sys

if __name__ == '__main__':
    from upgrade_service.tests.chaos import suite

    sys.exit(suite.main())
