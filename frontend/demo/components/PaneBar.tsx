import { useCallback, useState } from "react";
import { MAX_PANES } from "../panes";
import type { Person } from "../people";
import { chooseTheme, THEMES, useTheme } from "../theme";
import { Avatar } from "./Avatar";
import { Icon } from "./Icon";
import { IconButton } from "./IconButton";
import { NewPerson } from "./SignIn";
import { useOthers } from "./NewChat";
import { Popover } from "./Popover";
import type { Health } from "../health";

interface PaneBarProps {
  readonly person: Person;
  readonly open: readonly Person[];
  readonly health: Health;
  readonly isWhole: boolean;
  readonly onWire: (isWhole: boolean) => void;
  readonly onAdd: (person: Person) => void;
  readonly onSignOut: () => void;
}

/** Whose chat it is, how its connection is doing, and the switches of the demo. */
export function PaneBar({ person, open, health, isWhole, onWire, onAdd, onSignOut }: PaneBarProps) {
  const [menu, setMenu] = useState<HTMLElement | null>(null);
  const closeMenu = useCallback(() => setMenu(null), []);
  return (
    <header className="pane-bar">
      <Avatar id={person.id} name={person.name} size="small" />
      <div className="pane-who">
        <bdi className="pane-name">{person.name}</bdi>
        <span className="state" data-tone={health.tone} role="status">
          {health.word}
        </span>
      </div>
      <button
        type="button"
        className="wire"
        role="switch"
        aria-checked={isWhole}
        aria-label="Wire"
        title={isWhole ? "Cut the wire" : "Mend the wire"}
        onClick={() => onWire(!isWhole)}
      >
        Wire
        <span className="wire-track" />
      </button>
      <IconButton
        icon="more"
        label="Menu"
        aria-haspopup="menu"
        aria-expanded={menu !== null}
        onClick={(event) => setMenu(event.currentTarget)}
      />
      {menu !== null && (
        <Popover anchor={menu} label="Menu" className="menu" onClose={closeMenu}>
          <Beside person={person} open={open} onAdd={onAdd} onDone={closeMenu} />
          <ThemeChoice />
          <div className="menu-line" />
          <button type="button" className="menu-item" onClick={onSignOut}>
            <Icon name="close" />
            Sign out
          </button>
        </Popover>
      )}
    </header>
  );
}

interface BesideProps extends Pick<PaneBarProps, "person" | "open" | "onAdd"> {
  readonly onDone: () => void;
}

function Beside({ person, open, onAdd, onDone }: BesideProps) {
  const { people } = useOthers(person.id);
  if (open.length >= MAX_PANES) return <p className="menu-title">Four people are the most at a time.</p>;
  const others = people?.filter(({ id }) => open.every((each) => each.id !== id)) ?? [];
  const add = (next: Person) => {
    onDone();
    onAdd(next);
  };
  return (
    <>
      <p className="menu-title">Open beside this</p>
      {others.slice(0, 6).map((each) => (
        <button key={each.id} type="button" className="menu-item" onClick={() => add(each)}>
          <Avatar id={each.id} name={each.name} size="tiny" />
          <bdi>{each.name}</bdi>
        </button>
      ))}
      <NewPerson label="Somebody new" onChoose={([next]) => next && add(next)} />
      <div className="menu-line" />
    </>
  );
}

function ThemeChoice() {
  const theme = useTheme();
  return (
    <>
      <p className="menu-title">Colours</p>
      <div className="choice" role="group" aria-label="Colours">
        {THEMES.map((each) => (
          <button key={each} type="button" aria-pressed={each === theme} onClick={() => chooseTheme(each)}>
            {each[0]?.toUpperCase()}
            {each.slice(1)}
          </button>
        ))}
      </div>
    </>
  );
}
