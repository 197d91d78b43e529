/** Where a list will be in a moment. */
export function Ghosts({ count }: { readonly count: number }) {
  return (
    <div role="status">
      <span className="unseen">Loading</span>
      {Array.from({ length: count }, (_, index) => (
        <div key={index} className="ghost" aria-hidden="true">
          <i />
          <i />
          <i />
        </div>
      ))}
    </div>
  );
}
