"""The send route as it is usually written: SQLAlchemy ORM sessions, one transaction per request, and one
`publish` per recipient. The rows it writes are those of Gapless's own send: the message, the
conversation, the sender's read position, both heads and both inbox entries.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

import jwt
import orjson
import redis.asyncio as redis
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel, Field
from sqlalchemy import ForeignKey, UniqueConstraint, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Conversation(Base):
    __tablename__ = "orm_conversations"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    direct_a: Mapped[str]
    direct_b: Mapped[str]
    last_seq: Mapped[int] = mapped_column(default=0)
    __table_args__ = (UniqueConstraint("direct_a", "direct_b"),)


class Member(Base):
    __tablename__ = "orm_members"
    conversation_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("orm_conversations.id"), primary_key=True)
    user_id: Mapped[str] = mapped_column(primary_key=True)
    last_read_seq: Mapped[int] = mapped_column(default=0)


class Head(Base):
    __tablename__ = "orm_heads"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    head: Mapped[int] = mapped_column(default=0)


class Message(Base):
    __tablename__ = "orm_messages"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    conversation_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("orm_conversations.id"), index=True)
    seq: Mapped[int]
    sender_id: Mapped[str]
    client_message_id: Mapped[uuid.UUID]
    content: Mapped[str]
    created_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("conversation_id", "seq"), UniqueConstraint("sender_id", "client_message_id"))


class Inbox(Base):
    __tablename__ = "orm_inbox"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    message_id: Mapped[uuid.UUID]


engine = create_async_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://"), pool_size=20)
sessions = async_sessionmaker(engine, expire_on_commit=False)
broker = redis.from_url(os.environ["REDIS_URL"])


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


class SendMessage(BaseModel):
    recipient_id: str
    content: str = Field(min_length=1, max_length=10_000)
    client_message_id: uuid.UUID = Field(default_factory=uuid.uuid4)


async def current_user(authorization: str = Header()) -> str:
    try:
        claims = jwt.decode(authorization.removeprefix("Bearer "), os.environ["AUTH_JWT_SECRET"], algorithms=["HS256"])
    except jwt.InvalidTokenError as error:
        raise HTTPException(401) from error
    return str(claims["sub"])


async def session() -> AsyncIterator[AsyncSession]:
    async with sessions() as opened:
        yield opened


async def head_of(db: AsyncSession, user_id: str) -> Head:
    head = await db.scalar(select(Head).where(Head.user_id == user_id).with_for_update())
    if head is None:
        head = Head(user_id=user_id, head=0)
        db.add(head)
    return head


async def conversation_of(db: AsyncSession, one: str, other: str) -> Conversation:
    first, second = sorted((one, other))
    where = (Conversation.direct_a == first, Conversation.direct_b == second)
    conversation = await db.scalar(select(Conversation).where(*where).with_for_update())
    if conversation is None:
        conversation = Conversation(id=uuid.uuid4(), direct_a=first, direct_b=second, last_seq=0)
        db.add(conversation)
        await db.flush()
        db.add_all([Member(conversation_id=conversation.id, user_id=user, last_read_seq=0) for user in (first, second)])
        await db.flush()
    return conversation


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/api/v1/messages/send", status_code=201)
async def send(
    body: SendMessage,
    user_id: Annotated[str, Depends(current_user)],
    db: Annotated[AsyncSession, Depends(session)],
) -> dict[str, object]:
    conversation = await conversation_of(db, user_id, body.recipient_id)
    conversation.last_seq += 1
    message = Message(
        id=uuid.uuid4(), conversation_id=conversation.id, seq=conversation.last_seq, sender_id=user_id,
        client_message_id=body.client_message_id, content=body.content,
        created_at=datetime.now(UTC).replace(tzinfo=None),
    )  # fmt: skip
    db.add(message)
    member = await db.get(Member, (conversation.id, user_id))
    if member is not None:
        member.last_read_seq = message.seq
    seqs = {}
    for recipient in sorted((user_id, body.recipient_id)):
        head = await head_of(db, recipient)
        head.head += 1
        seqs[recipient] = head.head
        db.add(Inbox(user_id=recipient, seq=head.head, message_id=message.id))
    await db.commit()
    payload = {
        "id": str(message.id), "conversation_id": str(conversation.id), "seq": message.seq, "sender_id": user_id,
        "content": message.content, "created_at": message.created_at.isoformat(),
    }  # fmt: skip
    for recipient, seq in seqs.items():
        await broker.publish(f"user:{recipient}", orjson.dumps({"seq": seq, **payload}))
    return payload
