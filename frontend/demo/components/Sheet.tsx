import { useEffect, useRef, type ReactNode } from "react";
import { IconButton } from "./IconButton";

interface SheetProps {
  readonly title: string;
  readonly onClose: () => void;
  readonly children: ReactNode;
}

const FOCUSABLE = "button:not(:disabled), input:not(:disabled), [href], textarea";

/**
 * A dialog of one pane. The pane makes what lies below it inert; Tab goes around in it, Escape and a click
 * beside it close it, and what had the focus has it again.
 */
export function Sheet({ title, onClose, children }: SheetProps) {
  const box = useRef<HTMLElement>(null);

  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    box.current?.querySelector<HTMLElement>("[data-first]")?.focus();
    if (!box.current?.contains(document.activeElement)) box.current?.focus();
    // The button that was pressed may go away with what it did: Escape and Tab still belong here then.
    const kept = new MutationObserver(() => document.activeElement === document.body && box.current?.focus());
    if (box.current !== null) kept.observe(box.current, { childList: true, subtree: true });
    return () => {
      kept.disconnect();
      requestAnimationFrame(() => {
        if (document.activeElement === document.body && before?.isConnected) before.focus();
      });
    };
  }, []);

  const onKeyDown = (event: React.KeyboardEvent<HTMLElement>) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      onClose();
    }
    if (event.key !== "Tab") return;
    const stops = [...event.currentTarget.querySelectorAll<HTMLElement>(FOCUSABLE)];
    const [from, to] = event.shiftKey ? [stops[0], stops.at(-1)] : [stops.at(-1), stops[0]];
    if (document.activeElement === from || document.activeElement === event.currentTarget) {
      event.preventDefault();
      to?.focus();
    }
  };

  return (
    <div className="sheet-back" onPointerDown={(event) => event.target === event.currentTarget && onClose()}>
      <section ref={box} className="sheet" role="dialog" aria-modal="true" aria-label={title} tabIndex={-1} onKeyDown={onKeyDown}>
        <header className="sheet-head">
          <h2>{title}</h2>
          <IconButton icon="close" label="Close" onClick={onClose} />
        </header>
        {children}
      </section>
    </div>
  );
}
