"""Users as they cross HTTP."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from app.events import Person
from app.schemas.text import Name, RequestModel, UserId, WebUrl


class User(BaseModel):
    """A user as others see one."""

    id: str
    name: str | None
    avatar_url: str | None

    @classmethod
    def from_person(cls, person: Person) -> User:
        """Take over what the service returned."""
        return cls(id=person.id, name=person.name, avatar_url=person.avatar_url)


class PutUser(RequestModel):
    """A whole profile: what is left out is taken away."""

    name: Name | None = None
    avatar_url: WebUrl | None = None


class StreamSession(BaseModel):
    """Whom the cookie that came along lets open a stream, and until when."""

    user_id: str
    expires_at: datetime


class StreamTicket(BaseModel):
    """For `?ticket=`: opens one user's stream until `expires_at`, 30 s from now."""

    ticket: str
    expires_at: datetime


class DevTokenRequest(RequestModel):
    """Who to be, on a development server."""

    user_id: UserId
    name: Name | None = None


class DevToken(BaseModel):
    """A token such as a host app would sign."""

    token: str
    expires_at: datetime


class DevUsers(BaseModel):
    """The first 100 users of a development server."""

    items: list[User] = Field(max_length=100)
