import { useEffect, useState } from "react";
import { fetchPeople, type Person } from "../people";
import { sentenceOf, type Chat } from "../chat";
import { Avatar } from "./Avatar";
import { Ghosts } from "./Ghosts";
import { Sheet } from "./Sheet";

interface NewChatProps {
  readonly chat: Chat;
  readonly me: string;
  readonly onStarted: (conversationId: string) => void;
  readonly onClose: () => void;
}

/** One person makes a direct chat, several a group. */
export function NewChat({ chat, me, onStarted, onClose }: NewChatProps) {
  const { people, trouble, setTrouble } = useOthers(me);
  const [search, setSearch] = useState("");
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [title, setTitle] = useState("");
  const [isBusy, setBusy] = useState(false);
  const isGroup = chosen.size > 1;
  const shown = people?.filter(({ id, name }) => `${name} ${id}`.toLowerCase().includes(search.trim().toLowerCase()));

  const toggle = (id: string) => {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    setChosen(next);
  };
  const start = async () => {
    const [first] = chosen;
    if (first === undefined || isBusy) return;
    setBusy(true);
    try {
      const made = await chat.createConversation(
        isGroup
          ? { kind: "group", title: title.trim(), member_ids: [...chosen] }
          : { kind: "direct", member_ids: [first] },
      );
      onStarted(made.id);
    } catch (error) {
      setTrouble(sentenceOf(error));
      setBusy(false);
    }
  };

  return (
    <Sheet title="New chat" onClose={onClose}>
      <div className="sheet-body">
        <input
          data-first
          className="field"
          type="search"
          aria-label="Search people"
          placeholder="Search people"
          value={search}
          onChange={(event) => setSearch(event.target.value)}
        />
        {people === null && trouble === null && <Ghosts count={4} />}
        {shown?.length === 0 && (
          <p className="note">{search === "" ? "There is nobody else on this server yet." : "Nobody has that name."}</p>
        )}
        <ul className="people" aria-label="People">
          {shown?.map((person) => (
            <li key={person.id}>
              <label className="person">
                <Avatar id={person.id} name={person.name} />
                <span className="person-text">
                  <bdi className="person-name">{person.name}</bdi>
                  <bdi className="note">{person.id}</bdi>
                </span>
                <input type="checkbox" checked={chosen.has(person.id)} onChange={() => toggle(person.id)} />
              </label>
            </li>
          ))}
        </ul>
      </div>
      <form
        className="sheet-foot"
        onSubmit={(event) => {
          event.preventDefault();
          void start();
        }}
      >
        {trouble !== null && (
          <p className="trouble" role="alert">
            {trouble}
          </p>
        )}
        {isGroup && (
          <input
            className="field"
            aria-label="Name of the group"
            placeholder="Name of the group"
            value={title}
            maxLength={100}
            onChange={(event) => setTitle(event.target.value)}
          />
        )}
        <button
          type="submit"
          className="button primary"
          disabled={isBusy || chosen.size === 0 || (isGroup && title.trim() === "")}
        >
          {isGroup ? `Start a group of ${chosen.size + 1}` : "Start the chat"}
        </button>
      </form>
    </Sheet>
  );
}

export function useOthers(me: string) {
  const [people, setPeople] = useState<readonly Person[] | null>(null);
  const [trouble, setTrouble] = useState<string | null>(null);
  useEffect(() => {
    let isWanted = true;
    fetchPeople().then(
      (all) => isWanted && setPeople(all.filter(({ id }) => id !== me)),
      (error: unknown) => isWanted && setTrouble(sentenceOf(error)),
    );
    return () => {
      isWanted = false;
    };
  }, [me]);
  return { people, trouble, setTrouble };
}
