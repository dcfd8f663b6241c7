// A line chart as SVG, with the values under the pointer or the arrow keys. The page has it, and so has every report.

import { el, svg } from "./elements.js";

const HEIGHT = 220;
const LEFT = 50;
const RIGHT = 12;
const TOP = 12;
const BOTTOM = 26;
// Of a curve with so few points each is marked.
const FEW = 25;

/** A figure; `draw(series, {axis, isLog, fromZero})` shows series: [{name, color, points: [[x, y], ...]}], x ascending.
 * A series may have `raw`, points that are drawn thinly behind it, and be `dashed`.
 * place(x, axis): what to call a place on the horizontal axis; note: a line below the title
 * words: the chart for who cannot see it */
export function lineChart(title, { place, note = "", words = title }) {
  const drawing = svg("svg", { height: HEIGHT, role: "img", "aria-label": words, tabindex: 0 });
  const where = el("small");
  const readout = el("figcaption");
  const node = el(
    "figure",
    { className: "chart" },
    el("div", { className: "head" }, el("h3", { textContent: title }), where),
    note && el("p", { textContent: note }),
    drawing,
    readout,
  );
  let shown = [];
  let options = {};
  let scales = null;
  let at = null;
  let width = 0;

  function draw(series, { axis, isLog = false, fromZero = false }) {
    options = { axis, isLog, fromZero };
    shown = series
      .map((one) => ({ ...one, points: isLog ? one.points.filter(([, y]) => y > 0) : one.points }))
      .filter(({ points }) => points.length);
    if (width) redraw();
  }

  function redraw() {
    const points = shown.flatMap((one) => [...one.points, ...(one.raw ?? [])]);
    const xs = points.map(([x]) => x);
    // Where they begin near it, so that the charts of a run line up.
    if (xs[0] < xs.at(-1) / 10) xs.push(0);
    const ys = [...(options.fromZero ? [0] : []), ...points.map(([, y]) => y)];
    scales = {
      x: scale(xs, LEFT, width - RIGHT, { most: Math.floor(width / 64), isWhole: options.axis === "step" }),
      y: scale(ys, HEIGHT - BOTTOM, TOP, { isLog: options.isLog, margin: 0.06 }),
    };
    // What is printed on narrower paper shrinks.
    drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    drawing.replaceChildren(...grid(scales, options.axis, width), ...shown.flatMap((one) => line(one, scales, width)));
    point(at);
  }

  /** The values at a place on the horizontal axis; the last ones where it is null. */
  function point(spot) {
    at = spot;
    for (const mark of drawing.querySelectorAll(".mark")) mark.remove();
    const read = shown.map((one) => ({ ...one, value: at === null ? one.points.at(-1) : nearest(one.points, at) }));
    const isPointed = at !== null && read.length;
    if (isPointed) {
      const x = scales.x(Math.min(Math.max(at, scales.x.low), scales.x.high));
      drawing.append(
        svg("line", { class: "mark cursor", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }),
        ...read.map(({ color, value }) =>
          svg("circle", { class: `mark dot ${color}`, cx: scales.x(value[0]), cy: scales.y(value[1]), r: 3.5 }),
        ),
      );
    }
    const label = isPointed && onAxis(nearest(read[0].points, at)[0], options.axis);
    where.textContent = isPointed ? place(label, options.axis) : "";
    readout.replaceChildren(
      ...read.map(({ name, color, value }) =>
        el(
          "span",
          { className: `key ${color}` },
          el("span", { textContent: name }),
          el("b", { textContent: short(value[1]) }),
        ),
      ),
    );
  }

  new ResizeObserver(([{ contentRect }]) => {
    if (!contentRect.width || contentRect.width === width) return;
    width = contentRect.width;
    redraw();
  }).observe(drawing);
  drawing.addEventListener(
    "pointermove",
    (event) => scales && point(scales.x.back(event.clientX - drawing.getBoundingClientRect().left)),
  );
  drawing.addEventListener("pointerleave", () => point(null));
  drawing.addEventListener("blur", () => point(null));
  drawing.addEventListener("keydown", (event) => {
    const turn = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const points = shown[0]?.points;
    if (!turn || !points) return;
    event.preventDefault();
    const index = at === null ? points.length : points.indexOf(nearest(points, at));
    point(points[Math.min(Math.max(index + turn, 0), points.length - 1)][0]);
  });
  return { node, draw };
}

function grid({ x, y }, axis, width) {
  const across = y
    .ticks()
    .flatMap((value) => [
      svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, short(value)),
    ]);
  return [
    ...across,
    ...x
      .ticks()
      .map((value) => svg("text", { x: x(value), y: HEIGHT - 7, "text-anchor": "middle" }, onAxis(value, axis))),
  ];
}

function line({ color, points, raw, dashed }, { x, y }, width) {
  const path = (name, some) => {
    const places = thinned(some, width).map(([a, b]) => `${x(a).toFixed(1)} ${y(b).toFixed(1)}`);
    return svg("path", { class: `${name} ${color}`, d: `M${places.join("L")}` });
  };
  const dots = points.length > FEW ? [] : points;
  return [
    raw && path("raw", raw),
    points.length > 1 && path(dashed ? "line dashed" : "line", points),
    ...dots.map(([a, b]) => svg("circle", { class: `dot ${color}`, cx: x(a), cy: y(b), r: 3 })),
  ].filter(Boolean);
}

/** Of each stretch the lowest and the highest, so that thousands of points are drawn at once and no spike is lost. */
function thinned(points, width) {
  const size = Math.ceil(points.length / width);
  if (size <= 2) return points;
  const kept = [];
  for (let start = 0; start < points.length; start += size) {
    const part = points.slice(start, start + size);
    const low = part.reduce((best, one) => (one[1] < best[1] ? one : best));
    const high = part.reduce((best, one) => (one[1] > best[1] ? one : best));
    kept.push(...(low === high ? [low] : low[0] < high[0] ? [low, high] : [high, low]));
  }
  return [...kept, points.at(-1)];
}

/** From values to places between `from` and `to`; `back` is the way back. */
function scale(values, from, to, { isLog = false, isWhole = false, margin = 0, most = 5 }) {
  const [into, out] = isLog ? [Math.log10, (power) => 10 ** power] : [(value) => value, (value) => value];
  let [low, high] = values
    .reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity])
    .map(into);
  if (!values.length) {
    low = 0;
    high = 1;
  }
  const pad = low === high ? Math.abs(low) / 2 || 1 : (high - low) * margin;
  low = low - pad;
  high = high + pad;
  const place = (value) => from + ((into(value) - low) / (high - low)) * (to - from);
  const ticks = () => (isLog && high - low > 1 ? powers(low, high) : rounded(out(low), out(high), most, isWhole));
  return Object.assign(place, {
    low: out(low),
    high: out(high),
    ticks,
    back: (spot) => out(low + ((spot - from) / (to - from)) * (high - low)),
  });
}

/** At most so many round numbers from low to high; more where else there were less than two. */
function rounded(low, high, most, isWhole) {
  const power = 10 ** Math.max(Math.floor(Math.log10((high - low) / most)), isWhole ? 0 : -Infinity);
  const many = (step) => Math.floor(high / step) - Math.ceil(low / step) + 1;
  // The last is for a logarithm that was rounded down.
  const steps = [1, 2, 5, 10, 20].map((factor) => factor * power);
  const step = steps.find((one, index) => many(one) <= most || many(steps[index + 1]) < 2);
  return Array.from({ length: many(step) }, (_, index) => (Math.ceil(low / step) + index) * step);
}

function powers(low, high) {
  const every = Math.ceil((high - low) / 6);
  const first = Math.ceil(low);
  return Array.from(
    { length: Math.floor((Math.floor(high) - first) / every) + 1 },
    (_, index) => 10 ** (first + index * every),
  );
}

function nearest(points, at) {
  let low = 0;
  let high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < at) low = middle;
    else high = middle;
  }
  return at - points[low][0] < points[high][0] - at ? points[low] : points[high];
}

/** At most four digits that matter. */
export function short(value) {
  const size = Math.abs(value);
  if (size >= 1e9 || (size && size < 1e-3)) return value.toExponential(1).replace("e+", "e");
  if (size >= 1e4) return `${Number((value / (size >= 1e6 ? 1e6 : 1e3)).toPrecision(3))}${size >= 1e6 ? "M" : "k"}`;
  return String(Number(value.toPrecision(4)));
}

/** 3725 seconds as 1h 2m. */
export function duration(seconds) {
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  if (hours) return minutes ? `${hours}h ${minutes}m` : `${hours}h`;
  return minutes ? `${minutes}m ${Math.round(seconds % 60)}s` : `${Number((seconds % 60).toPrecision(3))}s`;
}

const onAxis = (value, axis) => (axis === "seconds" ? duration(value) : short(value));
