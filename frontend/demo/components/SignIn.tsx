import { useEffect, useId, useState } from "react";
import { fetchPeople, personNamed, type Person } from "../people";
import { MAX_PANES } from "../panes";
import { Avatar } from "./Avatar";
import { Ghosts } from "./Ghosts";

interface SignInProps {
  readonly onChoose: (people: readonly Person[]) => void;
}

type Found = { readonly people: readonly Person[] } | { readonly trouble: string } | null;

export function SignIn({ onChoose }: SignInProps) {
  const [found, setFound] = useState<Found>(null);
  const [attempt, setAttempt] = useState(0);

  useEffect(() => {
    let isWanted = true;
    fetchPeople().then(
      (people) => isWanted && setFound({ people }),
      (error: unknown) => isWanted && setFound({ trouble: error instanceof Error ? error.message : String(error) }),
    );
    return () => {
      isWanted = false;
    };
  }, [attempt]);

  return (
    <main className="sign-in">
      <p className="brand">
        <span className="brand-mark" aria-hidden="true">
          <i />
          <i />
          <i />
        </span>
        Gapless
      </p>
      <div className="sign-in-card">
        <div>
          <h1>Who are you today?</h1>
          <p className="note">This server runs for development: you may be anybody.</p>
        </div>
        {found === null && <Ghosts count={3} />}
        {found !== null && "trouble" in found && (
          <div className="sheet-part" role="alert">
            <p className="trouble">The people of this server cannot be read. {found.trouble}</p>
            <button
              type="button"
              className="button"
              onClick={() => {
                setFound(null);
                setAttempt(attempt + 1);
              }}
            >
              Try again
            </button>
          </div>
        )}
        {found !== null && "people" in found && <People people={found.people} onChoose={onChoose} />}
        <NewPerson label="Or somebody new" onChoose={onChoose} />
      </div>
      <p className="sign-in-foot">
        Tip: open two people side by side, cut the wire of one, write from the other, and mend it.
      </p>
    </main>
  );
}

function People({ people, onChoose }: SignInProps & { readonly people: readonly Person[] }) {
  const several = people.slice(0, MAX_PANES);
  return (
    <>
      {people.length === 0 && <p className="note">Nobody has been here yet. Be the first.</p>}
      <ul className="people">
        {people.map((person) => (
          <li key={person.id}>
            <button type="button" className="person" onClick={() => onChoose([person])}>
              <Avatar id={person.id} name={person.name} />
              <span className="person-text">
                <bdi className="person-name">{person.name}</bdi>
                <bdi className="note">{person.id}</bdi>
              </span>
            </button>
          </li>
        ))}
      </ul>
      {several.length > 1 && (
        <button type="button" className="button primary" onClick={() => onChoose(several)}>
          {several.length === people.length ? `All ${several.length}` : `The first ${several.length}`}, side by side
        </button>
      )}
    </>
  );
}

export function NewPerson({ label, onChoose }: SignInProps & { readonly label: string }) {
  const field = useId();
  const [name, setName] = useState("");
  return (
    <form
      className="sign-in-new"
      onSubmit={(event) => {
        event.preventDefault();
        if (name.trim() !== "") onChoose([personNamed(name)]);
      }}
    >
      <label htmlFor={field}>{label}</label>
      <div>
        <input
          id={field}
          className="field"
          value={name}
          maxLength={100}
          autoComplete="off"
          placeholder="Your name"
          onChange={(event) => setName(event.target.value)}
        />
        <button type="submit" className="button" disabled={name.trim() === ""}>
          Start
        </button>
      </div>
    </form>
  );
}
