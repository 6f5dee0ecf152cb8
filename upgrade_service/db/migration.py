"""Schema changes: an `expand` and a `contract` branch, so that two versions run side by side.

`expand` adds what the new code needs and leaves the old code alone; `contract` removes
what only the old code used, once no old process is left.
"""

import os
import pathlib
from typing import Any

import alembic
import alembic.command
import alembic.config
import alembic.migration
import alembic.script
import sqlalchemy as sa

from upgrade_service.db import base

BRANCHES = ('expand', 'contract')
_HERE = pathlib.Path(__file__).parent / 'alembic'


def alembic_config() -> alembic.config.Config:
    """Return alembic's configuration: every release's branches."""
    config = alembic.config.Config()
    config.set_main_option('script_location', str(_HERE))
    folders = sorted(str(p) for p in _HERE.glob('versions/*/*') if p.is_dir())
    config.set_main_option('path_separator', 'os')
    config.set_main_option('version_locations', os.pathsep.join(folders))
    return config


def upgrade(phase: str = 'all') -> None:
    """Bring the schema to the newest version: `expand`, `contract` or `all`."""
    config = alembic_config()
    with base.get_engine().begin() as connection:
        config.attributes['connection'] = connection
        for branch in BRANCHES if phase == 'all' else (phase,):
            alembic.command.upgrade(config, f'{branch}@head')


def heads() -> set[str]:
    """Return the revisions that the database has."""
    with base.get_engine().connect() as connection:
        return set(alembic.migration.MigrationContext.configure(connection).get_current_heads())


def wanted() -> set[str]:
    """Return the revisions that a database this code can use has."""
    scripts = alembic.script.ScriptDirectory.from_config(alembic_config())
    found = set(scripts.get_heads())
    for head in list(found):
        # alembic drops a head from its table once another head depends on it
        revision: Any = scripts.get_revision(head)
        needs = revision.dependencies or ()
        found -= {needs} if isinstance(needs, str) else set(needs)
    return found


def is_current() -> bool:
    """Tell whether the schema is the one this code wants."""
    return heads() == wanted()


def inspect_tables() -> list[str]:
    """List the tables that there are."""
    return sorted(sa.inspect(base.get_engine()).get_table_names())
