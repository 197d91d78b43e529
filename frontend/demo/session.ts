import { fetchToken, type Person } from "./people";
import { createWire, type Wire } from "./wire";

/** One signed-in person: who, over which connection, with which token. */
export interface Session {
  readonly person: Person;
  readonly wire: Wire;
  readonly token: (isRefused: boolean) => Promise<string>;
}

export function openSession(person: Person): Session {
  const wire = createWire();
  let token: Promise<string> | null = null;
  return {
    person,
    wire,
    token(isRefused) {
      if (token === null || isRefused) {
        const fresh = fetchToken(person, wire.fetch);
        token = fresh;
        // A failure is not kept: the next one who asks tries again.
        fresh.catch(() => {
          if (token === fresh) token = null;
        });
      }
      return token;
    },
  };
}
