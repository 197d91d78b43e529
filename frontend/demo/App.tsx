import { useCallback, useEffect, useRef, useState } from "react";
import { Avatar } from "./components/Avatar";
import { Pane } from "./components/Pane";
import { SignIn } from "./components/SignIn";
import { hashOf, MAX_PANES, panesOf } from "./panes";
import { fetchPeople, type Person } from "./people";
import { firstNameOf } from "./text/names";

/** The people whose chats are open, side by side. */
export function App() {
  const [people, setPeople] = useState<readonly Person[] | null>(() => (panesOf(location.hash).length ? null : []));
  const shown = useRef<HTMLDivElement>(null);
  const [current, setCurrent] = useState(0);

  useEffect(() => {
    const read = () => void peopleOf(location.hash).then(setPeople);
    read();
    addEventListener("hashchange", read);
    return () => removeEventListener("hashchange", read);
  }, []);

  const show = useCallback((next: readonly Person[]) => {
    history.replaceState(null, "", hashOf(next) || location.pathname);
    setPeople(next);
  }, []);
  const add = useCallback(
    (person: Person) => {
      if (people === null || people.length >= MAX_PANES || people.some(({ id }) => id === person.id)) return;
      show([...people, person]);
    },
    [people, show],
  );
  const close = useCallback(
    (person: Person) => show((people ?? []).filter(({ id }) => id !== person.id)),
    [people, show],
  );

  if (people === null) return null;
  if (people.length === 0) return <SignIn onChoose={show} />;
  return (
    <main className="app">
      <h1 className="unseen">Gapless</h1>
      {people.length > 1 && (
        <nav className="pane-tabs" aria-label="People">
          {people.map((person, index) => (
            <button
              key={person.id}
              type="button"
              aria-pressed={index === current}
              onClick={() => shown.current?.children[index]?.scrollIntoView({ behavior: "smooth", inline: "start" })}
            >
              <Avatar id={person.id} name={person.name} size="tiny" />
              <bdi>{firstNameOf(person.name)}</bdi>
            </button>
          ))}
        </nav>
      )}
      <div
        className="panes"
        ref={shown}
        onScroll={({ currentTarget: { scrollLeft, clientWidth } }) => setCurrent(Math.round(scrollLeft / clientWidth))}
      >
        {people.map((person) => (
          <Pane key={person.id} person={person} open={people} onAdd={add} onClose={close} />
        ))}
      </div>
    </main>
  );
}

/** The address holds ids; the names are the server's. */
async function peopleOf(hash: string): Promise<readonly Person[]> {
  const ids = panesOf(hash);
  if (ids.length === 0) return [];
  const known = await fetchPeople().catch((): readonly Person[] => []);
  return ids.map((id) => known.find((person) => person.id === id) ?? { id, name: id });
}
