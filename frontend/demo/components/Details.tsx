import { useCallback, useEffect, useId, useState } from "react";
import type { Conversation, Member } from "../../lib/types";
import { sentenceOf, type Chat } from "../chat";
import { peerOf, titleOf } from "../conversations";
import { nameOf } from "../people";
import { Avatar } from "./Avatar";
import { IconButton } from "./IconButton";
import { useOthers } from "./NewChat";
import { Sheet } from "./Sheet";

interface DetailsProps {
  readonly chat: Chat;
  readonly me: string;
  readonly conversation: Conversation;
  readonly onClose: () => void;
  readonly onLeft: () => void;
}

const FOR_EVER = "9999-12-31T00:00:00Z";

/** The name and the members of a group, and what one has set for oneself. */
export function Details({ chat, me, conversation, onClose, onLeft }: DetailsProps) {
  const title = titleOf(conversation, me);
  const isGroup = conversation.kind === "group";
  const [trouble, setTrouble] = useState<string | null>(null);
  const attempt = useCallback(async (work: Promise<unknown>) => {
    setTrouble(null);
    try {
      await work;
    } catch (error) {
      setTrouble(sentenceOf(error));
    }
  }, []);
  const isMuted = conversation.muted_until !== null && Date.parse(conversation.muted_until) > Date.now();

  return (
    <Sheet title={isGroup ? "Group" : "Chat"} onClose={onClose}>
      <div className="sheet-body">
        <div className="sheet-face">
          <Avatar id={peerOf(conversation, me)?.id ?? conversation.id} name={title} isGroup={isGroup} />
          <h3>
            <bdi>{title}</bdi>
          </h3>
          <p className="note">{isGroup ? `${conversation.member_count} members` : peerOf(conversation, me)?.id}</p>
        </div>
        {trouble !== null && (
          <p className="trouble" role="alert">
            {trouble}
          </p>
        )}
        {isGroup && conversation.role === "owner" && (
          <Rename title={conversation.title ?? ""} onRename={(next) => attempt(chat.rename(conversation.id, next))} />
        )}
        <button
          type="button"
          className="wire switch-line"
          role="switch"
          aria-checked={isMuted}
          onClick={() => attempt(chat.mute(conversation.id, isMuted ? null : FOR_EVER))}
        >
          Mute
          <span className="wire-track" />
        </button>
        {isGroup && <Members chat={chat} me={me} conversation={conversation} attempt={attempt} />}
        {isGroup && (
          <button
            type="button"
            className="button danger"
            onClick={() => attempt(chat.removeMember(conversation.id, me).then(onLeft))}
          >
            Leave the group
          </button>
        )}
      </div>
    </Sheet>
  );
}

function Rename({ title, onRename }: { readonly title: string; readonly onRename: (title: string) => void }) {
  const field = useId();
  const [text, setText] = useState(title);
  const next = text.trim();
  return (
    <form
      className="sheet-part"
      onSubmit={(event) => {
        event.preventDefault();
        if (next !== "" && next !== title) onRename(next);
      }}
    >
      <label htmlFor={field}>Name</label>
      <div className="sheet-line">
        <input id={field} className="field" value={text} maxLength={100} onChange={(event) => setText(event.target.value)} />
        <button type="submit" className="button" disabled={next === "" || next === title}>
          Save
        </button>
      </div>
    </form>
  );
}

interface MembersProps {
  readonly chat: Chat;
  readonly me: string;
  readonly conversation: Conversation;
  readonly attempt: (work: Promise<unknown>) => Promise<void>;
}

function Members({ chat, me, conversation, attempt }: MembersProps) {
  const { id, rev, role } = conversation;
  const { listMembers } = chat;
  const [members, setMembers] = useState<readonly Member[]>(conversation.members);
  const isOwner = role === "owner";

  // Each change of the members raises the rev, whoever made it.
  useEffect(() => {
    let isWanted = true;
    void attempt(listMembers(id).then((all) => isWanted && setMembers(all)));
    return () => {
      isWanted = false;
    };
  }, [listMembers, id, rev, attempt]);

  return (
    <div className="sheet-part">
      <h3>Members</h3>
      <ul className="people" aria-label="Members">
        {members.map((member) => {
          const name = nameOf(member);
          return (
            <li key={member.id} className="person">
              <Avatar id={member.id} name={name} />
              <span className="person-text">
                <bdi className="person-name">{member.id === me ? `${name} (you)` : name}</bdi>
                <span className="note">{member.role === "owner" ? "Owner" : "Member"}</span>
              </span>
              {isOwner && member.id !== me && (
                <>
                  <button
                    type="button"
                    className="button small"
                    aria-label={`${member.role === "owner" ? "Make member" : "Make owner"}: ${name}`}
                    onClick={() => attempt(chat.putMember(id, member.id, member.role === "owner" ? "member" : "owner"))}
                  >
                    {member.role === "owner" ? "Make member" : "Make owner"}
                  </button>
                  <IconButton
                    icon="close"
                    label={`Remove ${name}`}
                    onClick={() => attempt(chat.removeMember(id, member.id))}
                  />
                </>
              )}
            </li>
          );
        })}
      </ul>
      {isOwner && (
        <AddMember
          me={me}
          isMember={(userId) => members.some((member) => member.id === userId)}
          onAdd={(userId) => attempt(chat.putMember(id, userId, "member"))}
        />
      )}
    </div>
  );
}

interface AddMemberProps {
  readonly me: string;
  readonly isMember: (userId: string) => boolean;
  readonly onAdd: (userId: string) => void;
}

function AddMember({ me, isMember, onAdd }: AddMemberProps) {
  const { people } = useOthers(me);
  const others = people?.filter(({ id }) => !isMember(id)) ?? [];
  if (others.length === 0) return null;
  return (
    <>
      <h3>Add</h3>
      <ul className="people" aria-label="Add somebody">
        {others.map((person) => (
          <li key={person.id}>
            <button type="button" className="person" onClick={() => onAdd(person.id)}>
              <Avatar id={person.id} name={person.name} />
              <span className="person-text">
                <bdi className="person-name">{person.name}</bdi>
                <bdi className="note">{person.id}</bdi>
              </span>
              <span className="note">Add</span>
            </button>
          </li>
        ))}
      </ul>
    </>
  );
}
