// The last quarter of an hour, a point a second: columns of figures, and sums over what the page shows.

const MOST = 900;

export class Points {
  constructor() { this.clear(); }

  clear() { this.columns = { t: [] }; }

  get length() { return this.columns.t.length; }

  // Adds columns; a figure that was not there before, or is missing now, has null in its place.
  add(columns) {
    const before = this.length;
    const added = columns.t?.length ?? 0;
    for (const name of Object.keys(columns)) this.columns[name] ??= new Array(before).fill(null);
    for (const [name, column] of Object.entries(this.columns)) {
      column.push(...(columns[name] ?? new Array(added).fill(null)));
      if (column.length > MOST) column.splice(0, column.length - MOST);
    }
  }

  // The columns of the last seconds.
  last(seconds) {
    const { t } = this.columns;
    const end = t[t.length - 1] ?? 0;
    let start = t.length;
    while (start > 0 && t[start - 1] > end - seconds) start -= 1;
    return Object.fromEntries(Object.entries(this.columns).map(([name, column]) => [name, column.slice(start)]));
  }
}

export const sum = (column) => (column ?? []).reduce((total, value) => total + (value ?? 0), 0);

export function newest(column) {
  for (let place = (column?.length ?? 0) - 1; place >= 0; place -= 1) if (column[place] !== null) return column[place];
  return null;
}
