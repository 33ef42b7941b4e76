// Where each node of the cache's tree stands in the drawing. Pure.
//
// Left to right are token positions; a node goes from its first token to its last. The first child
// goes on in its parent's row, each other one begins a row of its own below:
//
//   |system|-- turn 1 --|-- turn 2 --|
//                       |-- branch --|

/** Positions are drawn by their square root: a system prompt is seen beside 100,000 tokens. */
export const place = (at, end) => Math.sqrt(at / Math.max(end, 1));

/** [{node, row, fromRow}] in drawing order, the number of rows, and the longest position. */
export function layOut(nodes, maxRows = 60) {
  const children = new Map();
  const known = new Set(nodes.map((n) => n.id));
  for (const n of nodes) {
    const parent = known.has(n.parent) ? n.parent : null;
    if (!children.has(parent)) children.set(parent, []);
    children.get(parent).push(n);
  }
  const reach = new Map();
  for (const n of [...nodes].reverse()) {
    const below = (children.get(n.id) ?? []).map((c) => reach.get(c.id) ?? c.to);
    reach.set(n.id, Math.max(n.to, ...below));
  }
  const longestFirst = (a, b) => reach.get(b.id) - reach.get(a.id);
  const placed = [];
  let rows = 0;
  const todo = (children.get(null) ?? []).sort(longestFirst).reverse().map((n) => [n, null]);
  while (todo.length) {
    let [node, fromRow] = todo.pop();
    const row = rows++;
    for (; node; fromRow = row) {
      placed.push({ node, row, fromRow });
      const [first, ...others] = (children.get(node.id) ?? []).sort(longestFirst);
      for (const other of others.reverse()) todo.push([other, row]);
      node = first;
    }
  }
  return {
    placed: placed.filter((p) => p.row < maxRows),
    rows: Math.min(rows, maxRows),
    hidden: Math.max(0, rows - maxRows),
    end: Math.max(1, ...nodes.map((n) => n.to)),
  };
}

/** Round positions for the axis. */
export function ticks(end) {
  const all = [0, 100, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000];
  const some = [];
  for (const t of all) if (t < end && (!some.length || place(t, end) - place(some.at(-1), end) > 0.1)) some.push(t);
  return some;
}
