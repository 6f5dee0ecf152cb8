"""Run the migrations on the connection that the caller gave."""

from alembic import context

from upgrade_service.db import models

context.configure(
    connection=context.config.attributes['connection'],
    target_metadata=models.Base.metadata,
    render_as_batch=True,
)
context.run_migrations()
