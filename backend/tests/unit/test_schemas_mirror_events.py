"""What the document says of answers is what `events.py` and the services write, field by field."""

from dataclasses import fields

import pytest
from pydantic import BaseModel

from app import events
from app.db import changes, members
from app.db.conversations import OwnSettings
from app.schemas import conversations, messages
from app.schemas import events as event_schemas
from app.services import pages


@pytest.mark.parametrize(
    "documented, written",
    [
        (messages.Person, events.Person),
        (messages.Reaction, events.Reaction),
        (messages.Message, events.Message),
        (messages.HistoryPage, pages.HistoryPage),
        (conversations.Member, events.Member),
        (conversations.Conversation, events.Conversation),
        (conversations.ConversationsPage, pages.Page),
        (conversations.MembersPage, pages.Page),
        (conversations.ReadState, members.ReadState),
        (conversations.ReadPosition, changes.ReadPosition),
        (conversations.Changes, changes.Changes),
        (event_schemas.OwnSettings, OwnSettings),
    ],
)
def test_the_same_fields_in_the_same_order(documented: type[BaseModel], written: type):
    assert list(documented.model_fields) == [field.name for field in fields(written)]
