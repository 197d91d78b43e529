"""Retention without an index by time."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run the SQL file of the same name, as one script: a prepared statement would take only one command."""
    sql = Path(__file__).parent.with_name("0003_retention.sql").read_text(encoding="utf-8")
    connection = op.get_bind().connection.dbapi_connection
    connection.run_async(lambda driver: driver.execute(sql))  # type: ignore[union-attr]
