"""Begin the contract branch: nothing to remove yet."""

revision = 'c2027_1_initial'
down_revision = None
branch_labels = ('contract',)
depends_on = ('e2027_1_initial',)


def upgrade() -> None:
    """Do nothing."""
