// The page of `unic report`: sorts tables, draws charts from the JSON in #data, reads values out under mouse, touch and
// keys. Names come from users: they only ever become text (textContent), never markup.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const DASHES = ["", "6 4", "2 4", "9 3 2 3"];
const SUPERSCRIPTS = "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079";
const dash = "\u2013";

function element(tag, options = {}, parent = null) {
  const node = Object.assign(document.createElement(tag), options);
  if (parent) parent.append(node);
  return node;
}

function shape(tag, attributes, parent) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (parent) parent.append(node);
  return node;
}

const colour = (series) => (series.colour < 0 ? "var(--text)" : `var(--c${series.colour % 7})`);

function number(value) {
  if (value === null || value === undefined) return dash;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) {
    const [digits, power] = value.toExponential(3).split("e");
    const raised = [...String(+power)].map((sign) => SUPERSCRIPTS["-0123456789".indexOf(sign)]).join("");
    return `${+digits}\u00b710${raised}`.replace("-", "\u2212");
  }
  const text = size >= 1000 ? Math.round(value).toLocaleString("en").replaceAll(",", "\u202f") : String(+value.toPrecision(4));
  return text.replace("-", "\u2212");
}

// ---- tables ----

function sortable(table) {
  const body = table.tBodies[0], original = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = header.querySelector("button");
    if (!button) return;
    const key = (row) => {
      const cell = row.cells[column];
      if (!header.classList.contains("number")) return cell.textContent;
      return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    };
    button.addEventListener("click", () => {
      // Best first, then worst first, then as it was.
      const first = header.dataset.first || "ascending", second = first === "ascending" ? "descending" : "ascending";
      const now = header.getAttribute("aria-sort");
      const next = now === first ? second : now === second ? "none" : first;
      headers.forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null || y === null) return (x === null) - (y === null); // what is missing stays at the end
        return sign * (typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true }));
      };
      body.append(...(next === "none" ? original : [...original].sort(compare)));
      table.classList.toggle("sorted", next !== "none");
    });
  });
}

// ---- charts: what all of them share ----

function chart(figure) {
  const spec = data.charts[figure.dataset.chart];
  const kind = { lines: lines, radar: radar, dots: dots }[spec.kind];
  const shown = spec.series.map((series) => !series.off);
  const legend = spec.series.length > 1 ? element("ul", { className: "legend" }, figure) : null;
  const plot = element("div", { className: "plot", tabIndex: 0 }, figure);
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-roledescription", "chart");
  plot.setAttribute("aria-label", `${spec.title}. Left and right arrow keys read the values.`);
  const announcement = element("span", { className: "hidden" }, figure);
  announcement.setAttribute("aria-live", "polite");
  let drawn = null, stop = null, tip = null, width = 0;

  function draw() {
    width = plot.clientWidth;
    if (!width) return;
    plot.replaceChildren();
    tip = null;
    drawn = kind(plot, spec, width, spec.series.filter((_, index) => shown[index]));
    if (stop !== null) point(Math.min(stop, drawn.stops - 1));
  }

  // Shows the values at one stop: a step of the curves, an axis of the radar.
  function point(next) {
    stop = drawn && drawn.stops > 0 && next !== null ? Math.max(0, Math.min(next, drawn.stops - 1)) : null;
    if (tip) tip.remove();
    if (drawn) drawn.marks.replaceChildren();
    tip = null;
    if (stop === null) return;
    const at = drawn.at(stop);
    tip = element("div", { className: "tip" }, plot);
    element("b", { textContent: at.title }, tip);
    const rows = element("tbody", {}, element("table", {}, tip));
    for (const row of at.rows.slice(0, 14)) {
      const line = element("tr", {}, rows);
      element("td", {}, line).append(swatch(row.series));
      element("span", { textContent: row.series.name }, element("td", {}, line));
      element("td", { textContent: row.text }, line);
    }
    if (at.rows.length > 14) element("div", { textContent: `and ${at.rows.length - 14} more`, className: "quiet" }, tip);
    const [left, top] = at.place(tip.offsetWidth, tip.offsetHeight);
    tip.style.left = `${Math.max(0, Math.min(left, width - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, top)}px`;
  }

  const follow = (event) => {
    if (!drawn) return;
    const box = plot.getBoundingClientRect();
    point(drawn.nearest(event.clientX - box.left, event.clientY - box.top));
  };
  plot.addEventListener("pointermove", follow);
  plot.addEventListener("pointerdown", follow);
  plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && point(null));
  plot.addEventListener("blur", () => point(null));
  plot.addEventListener("keydown", (event) => {
    if (!drawn) return;
    const last = drawn.stops - 1, now = stop === null ? -1 : stop;
    const moves = {
      ArrowRight: now + 1, ArrowLeft: stop === null ? last : now - 1, Home: 0, End: last,
      PageDown: now + 10, PageUp: now - 10, Escape: null,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    point(moves[event.key]);
    announcement.textContent = stop === null ? "" : drawn.at(stop).title + ": " +
      drawn.at(stop).rows.map((row) => `${row.series.name} ${row.text}`).join("; ");
  });

  const buttons = [];
  const show = (index, on) => {
    shown[index] = on;
    buttons[index].setAttribute("aria-pressed", on);
  };
  if (legend) {
    spec.series.forEach((series, index) => {
      const button = element("button", { type: "button", title: series.name }, element("li", {}, legend));
      button.append(swatch(series));
      const name = element("span", { textContent: series.name }, button);
      if (series.mean) element("em", { textContent: series.mean }, name);
      buttons.push(button);
      show(index, shown[index]);
      button.addEventListener("click", () => { show(index, !shown[index]); draw(); });
    });
  }
  const tools = element("span", { className: "tools" }, figure.querySelector("figcaption"));
  if (spec.series.length > 8) {
    for (const [text, on] of [["all", true], ["none", false]]) {
      const button = element("button", { type: "button", className: "plain", textContent: text }, tools);
      button.addEventListener("click", () => { spec.series.forEach((_, index) => show(index, on)); draw(); });
    }
  }
  if (spec.may_be_log) {
    const button = element("button", { type: "button", className: "plain", textContent: "log scale" }, tools);
    button.setAttribute("aria-pressed", !!spec.log);
    button.addEventListener("click", () => {
      spec.log = !spec.log;
      button.setAttribute("aria-pressed", spec.log);
      draw();
    });
  }
  draw();
  new ResizeObserver(() => plot.clientWidth !== width && draw()).observe(plot);
}

function swatch(series) {
  const picture = shape("svg", { width: 22, height: 10, "aria-hidden": "true" });
  const line = { x1: 1, x2: 21, y1: 5, y2: 5, "stroke-width": series.strong ? 3 : 2, "stroke-dasharray": DASHES[series.dash] };
  shape("line", line, picture).style.stroke = colour(series);
  if (series.dots) shape("circle", { cx: 11, cy: 5, r: 3.2 }, picture).style.fill = colour(series);
  return picture;
}

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
  const levels = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) levels.push(+(index * step).toPrecision(12));
  return levels;
}

function logarithmicTicks(low, high) {
  const levels = [], decades = Math.log10(high / low), factors = decades > 3 ? [1] : decades > 1 ? [1, 3] : [1, 2, 3, 5, 7];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const factor of factors) if (factor * 10 ** power >= low && factor * 10 ** power <= high) levels.push(+(factor * 10 ** power).toPrecision(6));
  return levels.length > 1 ? levels : ticks(low, high, 4).filter((value) => value > 0);
}

const centre = (text) => ({ "text-anchor": "middle", ...text });

function label(parent, x, y, text, attributes = {}) {
  const node = shape("text", { x, y, ...attributes }, parent);
  node.textContent = text;
  return node;
}

function dot(parent, x, y, series, radius = 3) {
  const node = shape("circle", { cx: x, cy: y, r: radius }, parent);
  node.style.fill = series.hollow ? "var(--ground)" : colour(series);
  node.style.stroke = colour(series);
  return node;
}

function path(parent, points, series, closed = false) {
  let text = "", pen = "M";
  for (const [x, y] of points) {
    text += x === null ? "" : `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = x === null ? "M" : "L";
  }
  const attributes = { d: text + (closed ? "Z" : ""), class: series.strong ? "line strong" : "line", "stroke-dasharray": DASHES[series.dash] };
  const node = shape("path", attributes, parent);
  node.style.stroke = colour(series);
  return node;
}

// ---- curves over steps ----

function lines(plot, spec, width, visible) {
  const height = width > 620 ? 320 : 230, left = 54, right = 14, top = 8, bottom = 30;
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, height }, plot);
  const usable = (value) => value !== null && (!spec.log || value > 0);
  const values = visible.flatMap((series) => series.y.filter(usable));
  const all = visible.flatMap((series) => series.x);
  const marks = shape("g", {}, null);
  if (!values.length) {
    const reason = visible.length ? "nothing above zero to show on a log scale" : "every curve is switched off";
    label(picture, width / 2, height / 2, reason, centre());
    return { stops: 0, marks, nearest: () => null, at: null };
  }
  const least = (list) => list.reduce((a, b) => Math.min(a, b)), most = (list) => list.reduce((a, b) => Math.max(a, b));
  let [low, high] = [least(values), most(values)];
  if (spec.zero && !spec.log) low = Math.min(0, low);
  if (low === high) [low, high] = spec.log ? [low / 2, high * 2] : [low - (Math.abs(low) / 10 || 1), high + (Math.abs(high) / 10 || 1)];
  const place = spec.log ? Math.log10 : (value) => value;
  const air = spec.zero && low === 0 ? 0 : 0.04 * (place(high) - place(low));
  const [from, to] = [place(low) - air, place(high) + 0.04 * (place(high) - place(low))];
  let [start, end] = [least(all), most(all)];
  if (start === end) [start, end] = [start - 1, end + 1];
  const x = (step) => left + ((step - start) / (end - start)) * (width - left - right);
  const y = (value) => height - bottom - ((place(value) - from) / (to - from)) * (height - top - bottom);

  const levels = spec.log ? logarithmicTicks(low, high) : ticks(from, to, height > 300 ? 6 : 4);
  for (const value of levels) {
    if (y(value) < top - 1 || y(value) > height - bottom + 1) continue;
    shape("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "grid" }, picture);
    label(picture, left - 8, y(value) + 4, number(value), { "text-anchor": "end" });
  }
  shape("line", { x1: left, x2: width - right, y1: height - bottom, y2: height - bottom, class: "axis" }, picture);
  for (const step of ticks(start, end, width > 620 ? 8 : 4)) {
    if (step !== Math.round(step)) continue;
    label(picture, x(step), height - bottom + 18, number(step), centre());
  }
  label(picture, left - 8, height - bottom + 18, "step", { "text-anchor": "end" });

  for (const series of [...visible].reverse()) {
    const points = series.x.map((step, index) => (usable(series.y[index]) ? [x(step), y(series.y[index])] : [null, null]));
    path(picture, points, series);
    if (series.dots || points.length < 20) for (const [a, b] of points) if (a !== null) dot(picture, a, b, series, 2.6);
  }
  picture.append(marks);
  const steps = [...new Set(all)].sort((a, b) => a - b);
  const tolerance = Math.max(1, ((end - start) / (width - left - right)) * 8);
  return {
    stops: steps.length, marks,
    nearest: (px) => closest(steps, start + ((px - left) / (width - left - right)) * (end - start)),
    at(stop) {
      const step = steps[stop], rows = [];
      shape("line", { x1: x(step), x2: x(step), y1: top, y2: height - bottom, class: "cursor" }, marks);
      for (const series of visible) {
        const index = closest(series.x, step), value = series.y[index];
        if (Math.abs(series.x[index] - step) > tolerance) continue;
        const elsewhere = series.x[index] === step ? "" : ` (step ${number(series.x[index])})`;
        rows.push({ series, text: number(value) + elsewhere });
        if (usable(value)) dot(marks, x(series.x[index]), y(value), series, 4);
      }
      const beside = (w, h) => [x(step) < width / 2 ? x(step) + 14 : x(step) - 14 - w, Math.min(height / 2.4 - h / 2, height - h)];
      return { title: `step ${number(step)}`, rows, place: beside };
    },
  };
}

function closest(sorted, value) {
  const distance = (index) => Math.abs(sorted[index] - value);
  return sorted.reduce((best, _, index) => (distance(index) <= distance(best) ? index : best), 0);
}

// ---- relative to the best teacher ----

function range(visible) {
  const values = visible.flatMap((series) => series.y.filter((value) => value !== null));
  const low = Math.min(100, ...values), high = Math.max(100, ...values), spread = Math.max(high - low, 2);
  const step = [0.5, 1, 2, 5, 10, 20, 50, 100].find((size) => spread / size <= 5) || 200;
  const first = Math.max(0, step * Math.floor((low - spread * 0.08) / step)), last = high + spread * 0.06, levels = [];
  for (let value = first; value <= last; value += step) levels.push(+value.toFixed(1));
  return { levels, low: first, high: last };
}

const percent = (value) => (value === null ? dash : `${value.toFixed(1)}\u202f%`);

function valuesAt(visible, axis) {
  return visible
    .map((series) => ({ series, text: `${series.text[axis]}\u2002(${percent(series.y[axis])})`, value: series.y[axis] }))
    .sort((a, b) => (b.value ?? -1) - (a.value ?? -1));
}

function radar(plot, spec, width, visible) {
  const small = width < 480, height = small ? width * 1.02 : Math.min(width * 0.78, 560);
  const [cx, cy] = [width / 2, height / 2], radius = Math.min(height / 2 - 46, width / 2 - (small ? 62 : 130));
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, height }, plot);
  const { low, high, levels } = range(visible), count = spec.axes.length;
  const at = (axis, value) => {
    const angle = (2 * Math.PI * axis) / count - Math.PI / 2, length = (radius * (value - low)) / (high - low);
    return [cx + length * Math.cos(angle), cy + length * Math.sin(angle)];
  };
  const ring = (value) => spec.axes.map((_, axis) => at(axis, value).map((part) => part.toFixed(1)).join(",")).join(" ");
  for (const value of [...levels.slice(1), high]) shape("polygon", { points: ring(value), class: "grid" }, picture);
  shape("polygon", { points: ring(100), class: "goal" }, picture).style.stroke = "var(--text)";
  spec.axes.forEach((axis, index) => {
    const [x, y] = at(index, high);
    shape("line", { x1: cx, y1: cy, x2: x, y2: y, class: "grid" }, picture);
    const [tx, ty] = [cx + ((x - cx) / radius) * (radius + 12), cy + ((y - cy) / radius) * (radius + 12)];
    const side = Math.abs(tx - cx) < 8 ? "middle" : tx > cx ? "start" : "end";
    const room = (side === "middle" ? width : side === "start" ? width - tx : tx) / 6.4;
    const block = [[axis.label[0], "strong"], ...axis.label.slice(1).map((text) => [text, ""])];
    if (axis.gain) block.push([axis.gain, "gain"]);
    const above = ty < cy - 4 ? block.length - 1 : Math.abs(ty - cy) < 4 ? (block.length - 1) / 2 : 0.2;
    block.forEach(([text, className], line) => {
      const cut = text.length > room ? `${text.slice(0, Math.max(3, room - 1))}\u2026` : text;
      const node = label(picture, tx, ty + 4 + 14 * (line - above), cut, { "text-anchor": side, class: className });
      shape("title", {}, node).textContent = axis.label.join(" ");
    });
  });
  const alone = visible.filter((series) => series.strong).length === 1;
  for (const series of [...visible].reverse()) {
    const points = series.y.map((value, axis) => (value === null ? [null, null] : at(axis, value)));
    const whole = points.every(([x]) => x !== null);
    const outline = path(picture, whole ? points : [...points, points[0]], series, whole);
    if (series.strong && whole && alone) { outline.style.fill = colour(series); outline.style.fillOpacity = 0.07; }
    for (const [x, y] of points) if (x !== null) dot(picture, x, y, series, series.strong ? 3.4 : 2.6);
  }
  for (const value of levels) {
    const [x, y] = at(0, value);
    const text = label(picture, x - 6, y + 4, `${value}`, { "text-anchor": "end" });
    text.style.cssText = "paint-order: stroke; stroke: var(--ground); stroke-width: 3px; font-size: 11px";
  }
  const marks = shape("g", {}, picture);
  return {
    stops: count, marks,
    nearest: (px, py) => {
      const turn = (Math.atan2(py - cy, px - cx) + Math.PI / 2 + 4 * Math.PI) / (2 * Math.PI);
      return Math.round((turn % 1) * count) % count;
    },
    at(axis) {
      const [x, y] = at(axis, high);
      shape("line", { x1: cx, y1: cy, x2: x, y2: y, class: "cursor" }, marks);
      const rows = valuesAt(visible, axis);
      for (const row of rows) if (row.value !== null) dot(marks, ...at(axis, row.value), row.series, 4.4);
      // In the corner that is furthest from the axis; below, where there are no free corners.
      const corner = (w, h) => (small ? [0, height - 24] : [x < cx ? width - w : 0, y < cy ? height - h : 0]);
      return { title: spec.axes[axis].label.join(" "), rows, place: corner };
    },
  };
}

// The same values where a radar would have fewer than three axes, or too many to read: a line of dots for each.
function dots(plot, spec, width, visible) {
  const rowHeight = 54, top = 6, bottom = 30, height = top + bottom + rowHeight * spec.axes.length;
  const left = 10, right = 18, { low, high, levels } = range(visible);
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, height }, plot);
  const x = (value) => left + ((value - low) / (high - low)) * (width - left - right);
  for (const value of levels) {
    shape("line", { x1: x(value), x2: x(value), y1: top, y2: height - bottom, class: "grid" }, picture);
    label(picture, x(value), height - bottom + 18, `${value}`, centre());
  }
  const goal = shape("line", { x1: x(100), x2: x(100), y1: top, y2: height - bottom, class: "goal" }, picture);
  goal.style.stroke = "var(--text)";
  const middle = (axis) => top + rowHeight * axis + 36;
  spec.axes.forEach((axis, index) => {
    const text = label(picture, left, middle(index) - 16, axis.label.join("  "), { class: "strong" });
    text.style.cssText = "paint-order: stroke; stroke: var(--ground); stroke-width: 4px";
    shape("line", { x1: left, x2: width - right, y1: middle(index), y2: middle(index), class: "grid" }, picture);
    for (const series of visible.filter((series) => series.y[index] !== null)) {
      dot(picture, x(series.y[index]), middle(index), series, series.strong ? 6.5 : 5).style.fillOpacity = 0.85;
    }
  });
  const marks = shape("g", {}, picture);
  return {
    stops: spec.axes.length, marks,
    nearest: (_, py) => Math.max(0, Math.min(spec.axes.length - 1, Math.floor((py - top) / rowHeight))),
    at(axis) {
      shape("line", { x1: left, x2: width - right, y1: middle(axis), y2: middle(axis), class: "cursor" }, marks);
      return { title: spec.axes[axis].label.join(" "), rows: valuesAt(visible, axis), place: () => [left, middle(axis) + 14] };
    },
  };
}

// ---- light and dark ----

const scheme = document.getElementById("scheme");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const stored = (value) => { // a page from a file may have no storage
  try { return value ? localStorage.setItem("unic-scheme", value) : localStorage.getItem("unic-scheme"); } catch { return null; }
};
function applyScheme(chosen) {
  const now = chosen || (prefersDark.matches ? "dark" : "light"), other = now === "dark" ? "light" : "dark";
  document.documentElement.style.colorScheme = chosen || "";
  scheme.textContent = `\u25d0 ${other}`;
  scheme.setAttribute("aria-label", `Switch to ${other} colours`);
  scheme.onclick = () => { stored(other); applyScheme(other); };
}
applyScheme(stored());
prefersDark.addEventListener("change", () => applyScheme(stored()));

document.querySelectorAll("table.sortable").forEach(sortable);
// A chart is drawn when it comes near the screen: two hundred runs are many charts.
const waiting = new Set(document.querySelectorAll("[data-chart]"));
const begin = (figure) => waiting.delete(figure) && chart(figure);
const watcher = new IntersectionObserver(
  (entries) => entries.forEach((entry) => entry.isIntersecting && (watcher.unobserve(entry.target), begin(entry.target))),
  { rootMargin: "400px" },
);
waiting.forEach((figure) => watcher.observe(figure));
addEventListener("beforeprint", () => waiting.forEach(begin));
