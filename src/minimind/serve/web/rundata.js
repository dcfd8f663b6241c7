// The figures and samples of one run, as far as they have come. `pull` asks only for what is new.

import { get } from "./api.js";

// What a chart may have below it; rows without one are left out of such a chart.
export const AXES = ["step", "tokens", "seconds"];

export class RunData {
  constructor(name) {
    this.name = name;
    this.cursors = { metrics: { next: 0, file: "" }, samples: { next: 0, file: "" } };
    this.clear("metrics");
    this.clear("samples");
  }

  clear(kind) {
    this.cursors[kind].broken = 0;
    if (kind === "samples") this.samples = [];
    // axes: a value for each row; columns: by name, the places of the rows that have it, and its values there.
    else {
      this.axes = Object.fromEntries(AXES.map((axis) => [axis, []]));
      this.columns = new Map();
    }
  }

  get broken() {
    return this.cursors.metrics.broken + this.cursors.samples.broken;
  }

  /** Whether something has come. */
  async pull() {
    const found = [await this.#pull("metrics"), await this.#pull("samples")];
    return found.some(Boolean);
  }

  async #pull(kind) {
    const cursor = this.cursors[kind];
    let isNew = false;
    for (;;) {
      const asked = new URLSearchParams({ run: this.name, kind, start: cursor.next, file: cursor.file });
      const { rows, start, next, file, broken, more } = await get(`page/rows?${asked}`);
      if (start !== cursor.next) {
        this.clear(kind);
        isNew = true;
      }
      for (const row of rows) this.#add(kind, row);
      Object.assign(cursor, { next, file, broken: cursor.broken + broken });
      isNew ||= rows.length > 0 || broken > 0;
      if (!more) return isNew;
    }
  }

  #add(kind, row) {
    if (kind === "samples") {
      this.samples.push(row);
      return;
    }
    const place = this.axes.step.length;
    for (const axis of AXES) this.axes[axis].push(row[axis] ?? null);
    for (const [key, value] of Object.entries(row)) {
      if (AXES.includes(key)) continue;
      if (!this.columns.has(key)) this.columns.set(key, { places: [], values: [] });
      const column = this.columns.get(key);
      column.places.push(place);
      column.values.push(value);
    }
  }

  /** [[x, y], ...] */
  points(key, axis) {
    const column = this.columns.get(key);
    if (!column) return [];
    const xs = this.axes[axis];
    return column.places.map((place, index) => [xs[place], column.values[index]]).filter(([x]) => x !== null);
  }

  /** The newest value, or null. */
  last(key) {
    return (AXES.includes(key) ? this.axes[key] : this.columns.get(key)?.values)?.at(-1) ?? null;
  }
}
