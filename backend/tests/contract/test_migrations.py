"""The numbered files and alembic's own order are one."""

from __future__ import annotations

from alembic.config import Config
from alembic.script import ScriptDirectory

from app.db import migrate


def test_the_newest_revision_by_name_is_the_head_of_the_chain():
    config = Config()
    config.set_main_option("script_location", str(migrate._FOLDER))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [migrate.newest_revision()]
    revisions = [revision.revision for revision in script.walk_revisions()]
    assert revisions == sorted(revisions, reverse=True)
