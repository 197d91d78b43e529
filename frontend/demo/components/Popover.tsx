import { useEffect, useLayoutEffect, useRef, type ReactNode } from "react";

interface PopoverProps {
  readonly anchor: HTMLElement;
  readonly label: string;
  readonly onClose: () => void;
  readonly children: ReactNode;
  readonly className?: string;
  readonly role?: "menu" | "dialog";
}

const EDGE = 8;

/**
 * Something small over the page, beside its anchor. The browser closes it at Escape and at a click elsewhere;
 * what had the focus has it again.
 */
export function Popover({ anchor, label, onClose, children, className = "", role = "dialog" }: PopoverProps) {
  const ref = useRef<HTMLDivElement>(null);

  useLayoutEffect(() => {
    const popover = ref.current;
    if (popover === null) return;
    popover.showPopover();
    // Also when what is in it has been loaded.
    const grown = new ResizeObserver(() => place(popover, anchor));
    grown.observe(popover);
    place(popover, anchor);
    (popover.querySelector<HTMLElement>("[data-first]") ?? popover).focus();
    return () => grown.disconnect();
  }, [anchor]);

  useEffect(() => {
    const popover = ref.current;
    const onToggle = (event: Event) => {
      if ((event as ToggleEvent).newState !== "closed") return;
      if (document.activeElement === document.body || popover?.contains(document.activeElement)) anchor.focus();
      onClose();
    };
    popover?.addEventListener("toggle", onToggle);
    return () => popover?.removeEventListener("toggle", onToggle);
  }, [anchor, onClose]);

  return (
    <div
      ref={ref}
      popover="auto"
      role={role}
      aria-label={label}
      tabIndex={-1}
      className={`popover ${className}`}
      onKeyDown={moveFocus}
    >
      {children}
    </div>
  );
}

/** Below the anchor where there is room, else above; within its pane, and never over the edge of the window. */
function place(popover: HTMLElement, anchor: HTMLElement): void {
  const at = anchor.getBoundingClientRect();
  const own = popover.getBoundingClientRect();
  const pane = (anchor.closest(".pane") ?? document.body).getBoundingClientRect();
  const below = at.bottom + 6;
  const top = below + own.height + EDGE <= innerHeight ? below : at.top - own.height - 6;
  const left = Math.max(pane.left + EDGE, Math.min(at.left, pane.right - own.width - EDGE));
  popover.style.top = `${Math.max(EDGE, Math.min(top, innerHeight - own.height - EDGE))}px`;
  popover.style.left = `${Math.max(EDGE, Math.min(left, innerWidth - own.width - EDGE))}px`;
}

/** Arrow keys go from button to button: in a grid, up and down go to the nearest one in the next line. */
function moveFocus(event: React.KeyboardEvent<HTMLElement>): void {
  event.stopPropagation(); // React passes it on to what the anchor is in
  if (!event.key.startsWith("Arrow") || event.target instanceof HTMLInputElement) return;
  const buttons = [...event.currentTarget.querySelectorAll<HTMLElement>("button:not(:disabled)")];
  const from = buttons.indexOf(document.activeElement as HTMLElement);
  const next = from < 0 ? buttons[0] : neighbour(buttons, from, event.key);
  if (next === undefined) return;
  event.preventDefault();
  next.focus();
}

function neighbour(buttons: readonly HTMLElement[], from: number, key: string): HTMLElement | undefined {
  const isForward = key === "ArrowRight" || key === "ArrowDown";
  if (key === "ArrowLeft" || key === "ArrowRight") return buttons[from + (isForward ? 1 : -1)];
  const here = buttons[from]?.getBoundingClientRect();
  if (here === undefined) return undefined;
  const line = (isForward ? buttons.slice(from + 1) : buttons.slice(0, from).reverse()).map((button) => ({
    button,
    box: button.getBoundingClientRect(),
  }));
  const next = line.find(({ box }) => Math.abs(box.top - here.top) > 4);
  const sameLine = line.filter(({ box }) => next !== undefined && Math.abs(box.top - next.box.top) <= 4);
  return sameLine.sort((a, b) => Math.abs(a.box.left - here.left) - Math.abs(b.box.left - here.left))[0]?.button;
}
