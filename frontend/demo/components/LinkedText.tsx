import { memo } from "react";
import { piecesOf } from "../text/links";

/** A message as text nodes and, for http and https, links. */
export const LinkedText = memo(function LinkedText({ text }: { text: string }) {
  return piecesOf(text).map((piece) =>
    piece.href === undefined ? (
      piece.text
    ) : (
      <a key={piece.at} href={piece.href} target="_blank" rel="noopener noreferrer nofollow" dir="ltr">
        {piece.text}
      </a>
    ),
  );
});
