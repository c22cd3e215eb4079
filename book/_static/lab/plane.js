// The plane: every training point coloured and sized by its influence, the test points, and the boundary.

import { boundary } from "./boundary.js";
import { element, fill, mark, r, said, set, signed, star } from "./svg.js";

const SIZE = 400;
const REACH = 3.6;
const px = (/** @type {number} */ v) => ((Math.max(-REACH, Math.min(REACH, v)) + REACH) / (2 * REACH)) * SIZE;
const py = (/** @type {number} */ v) => SIZE - px(v);
const LETTER = [7, 12]; // the width and the height of a label's letters
const BESIDE = [12, 9]; // how far from its point a label stands
const LEGEND =
  "Circles have label 0, triangles label 1; stars are test points. Orange is harmful to the chosen one, blue helpful, " +
  "and what is larger and stronger in colour matters more. Dashed: the boundary without the chosen point.";
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** @typedef {import("./app.js").App} App @typedef {import("./app.js").State} State */

/** How many words a screen reader says of a point. @param {State} state @param {number} k */
function spoken({ scene, influences }, k) {
  const z = scene.points[k];
  const I = influences?.[k];
  const effect = I === undefined ? "" : `, influence ${signed(I, 3)}, ${I > 0 ? "harmful" : "helpful"}`;
  return `training point ${z.id}, label ${z.y}, at ${said(z.x[0])}, ${said(z.x[1])}${effect}`;
}

/**
 * Where each label stands: on that side of its point where it covers fewest labels and points.
 * @param {{x: number, y: number, text: string}[]} labels @param {number[][]} points
 */
function placed(labels, points) {
  /** @type {number[][]} */
  const taken = []; // left, right, top, bottom
  return labels.map(({ x, y, text }) => {
    const width = LETTER[0] * text.length;
    const boxes = [1, -1].flatMap((right) =>
      [-1, 1, 0].map((down) => {
        const left = x + right * BESIDE[0] - (right < 0 ? width : 0);
        const middle = y + down * BESIDE[1];
        return [left, left + width, middle - LETTER[1] / 2, middle + LETTER[1] / 2];
      }),
    );
    const cost = (/** @type {number[]} */ [left, right, top, bottom]) =>
      points.filter(([u, v]) => u > left - 5 && u < right + 5 && v > top - 5 && v < bottom + 5).length +
      10 * taken.filter(([l, r_, t, b]) => l < right && r_ > left && t < bottom && b > top).length +
      100 * Number(left < 0 || right > SIZE || top < 0 || bottom > SIZE);
    const best = boxes.reduce((found, box) => (cost(box) < cost(found) ? box : found));
    taken.push(best);
    return `<text x="${r(best[0])}" y="${r(best[3] - 2)}">${text}</text>`;
  });
}

/** @param {App} app */
export function plane(app) {
  const region = element("svg:path", { class: "region" });
  const without = element("svg:path", { class: "boundary without" });
  const line = element("svg:path", { class: "boundary" });
  const dots = element("svg:g");
  const stars = element("svg:g");
  const names = element("svg:g", { class: "names", "aria-hidden": "true" });
  const svg = element(
    "svg:svg",
    {
      viewBox: `0 0 ${SIZE} ${SIZE}`,
      role: "group",
      "aria-label": "The plane with its points",
      class: "plane",
    },
    element("svg:rect", { class: "paper", width: SIZE, height: SIZE }),
    region,
    without,
    line,
    dots,
    stars,
    names,
  );
  /** @type {Map<string, any>} */
  const shown = new Map();

  /** @param {string} key @param {any} group */
  function handle(key, group) {
    if (!shown.has(key)) {
      const made = element("svg:g", { class: "point", role: "button", "data-key": key });
      made.append(element("svg:circle", { class: "grip", r: 13 }), element("svg:path", {}));
      group.append(made);
      shown.set(key, made);
    }
    return shown.get(key);
  }

  /** What a key, such as `p31` or `t0`, stands for. @param {string} key */
  const meant = (key) => ({ kind: /** @type {"p" | "t"} */ (key[0]), id: Number(key.slice(1)) });

  /** @param {PointerEvent} event @returns {[number, number]} */
  function place(event) {
    const box = svg.getBoundingClientRect();
    const part = (/** @type {number} */ v) => Math.round((2 * REACH * v - REACH) * 1000) / 1000;
    return [part((event.clientX - box.left) / box.width), part(1 - (event.clientY - box.top) / box.height)];
  }

  /** @type {string | null} */
  let dragged = null;
  svg.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    const target = /** @type {Element} */ (event.target).closest("[data-key]");
    if (!target || event.button !== 0) return;
    dragged = target.getAttribute("data-key");
    const { kind, id } = meant(/** @type {string} */ (dragged));
    app.choose(kind, id);
    svg.setPointerCapture(event.pointerId);
    app.begin();
    event.preventDefault();
    shown.get(/** @type {string} */ (dragged))?.focus({ preventScroll: true });
  });
  svg.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    if (dragged) {
      const { kind, id } = meant(dragged);
      app.move(kind, id, place(event));
    } else {
      const target = /** @type {Element} */ (event.target).closest("[data-key^=p]");
      app.hover(target ? meant(/** @type {string} */ (target.getAttribute("data-key"))).id : null);
    }
  });
  const release = () => {
    if (dragged) app.end();
    dragged = null;
  };
  svg.addEventListener("pointerup", release);
  svg.addEventListener("pointercancel", release);
  svg.addEventListener("pointerleave", () => dragged || app.hover(null));
  // A finger on a point drags it; beside the points, it scrolls the page. (`touch-action` is not heard inside a drawing.)
  const onPoint = (/** @type {TouchEvent} */ event) =>
    /** @type {Element} */ (event.target).closest("[data-key]") && event.preventDefault();
  svg.addEventListener("touchstart", onPoint, { passive: false });
  svg.addEventListener("dblclick", (/** @type {any} */ event) => {
    if (!event.target.closest("[data-key]")) app.addPoint(place(event));
  });
  svg.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const key = /** @type {Element} */ (event.target).getAttribute?.("data-key");
    if (!key || event.ctrlKey || event.metaKey || event.altKey) return;
    const { kind, id } = meant(key);
    const step = event.shiftKey ? 0.25 : 0.05;
    const way = KEYS[/** @type {keyof typeof KEYS} */ (event.key)];
    if (way) app.nudge(kind, id, way[0] * step, way[1] * step);
    else if (event.key === "Enter" || event.key === " ") app.choose(kind, id);
    else if (event.key === "f" || event.key === "F") app.flip(kind, id);
    else if (event.key === "PageDown") app.next(kind, 1);
    else if (event.key === "PageUp") app.next(kind, -1);
    else if (kind === "p" && (event.key === "Delete" || event.key === "Backspace")) app.removePoint(id);
    else if (kind === "p" && (event.key === "+" || event.key === "-"))
      app.weigh(id, event.key === "+" ? 0.25 : -0.25);
    else return;
    event.preventDefault();
    const { scene } = app.state;
    shown.get(kind === "p" ? `p${scene.point}` : `t${scene.test}`)?.focus({ preventScroll: true });
  });
  svg.addEventListener("focusin", (/** @type {FocusEvent} */ event) => {
    const key = /** @type {Element} */ (event.target).getAttribute?.("data-key");
    if (key?.startsWith("p")) app.hover(meant(key).id);
  });

  /** @param {any} group @param {{x: number[]}} z @param {string} d @param {(string | false | number)[]} kinds */
  function put(group, z, d, kinds) {
    const chosen = kinds.includes("chosen");
    set(group.firstChild, { cx: r(px(z.x[0])), cy: r(py(z.x[1])) });
    set(group.lastChild, { d });
    set(group, {
      class: ["point", ...kinds].filter(Boolean).join(" "),
      tabindex: chosen ? 0 : -1,
      "aria-pressed": String(chosen),
    });
  }

  /** @param {State} state */
  function draw(state) {
    const { scene, found, influences, hovered, busy } = state;
    const good = found.verdict === "minimum";
    const drawn = boundary(found.theta, REACH, px, py);
    line.setAttribute("d", drawn.line);
    region.setAttribute("d", drawn.region);
    svg.classList.toggle("refused", !good);
    const theta = state.without(hovered ?? scene.point);
    without.setAttribute("d", theta ? boundary(theta, REACH, px, py).line : "");

    const largest = influences ? Math.max(...influences.map(Math.abs), 1e-12) : 1;
    const present = new Set();
    scene.points.forEach((z, k) => {
      const key = `p${z.id}`;
      present.add(key);
      const share = influences ? influences[k] / largest : 0;
      const chosen = z.id === scene.point;
      const size = 4 + 7 * Math.sqrt(Math.abs(share)) * (z.m ? 1 : 0.6);
      const kinds = [share > 0 ? "harmful" : "helpful", chosen && "chosen", z.id === hovered && "hovered"];
      const group = handle(key, dots);
      put(group, z, mark(px(z.x[0]), py(z.x[1]), size, z.y), [...kinds, !z.m && "weightless"]);
      set(group.lastChild, { "fill-opacity": (0.12 + 0.88 * Math.sqrt(Math.abs(share))).toFixed(2) });
      if (!busy) set(group, { "aria-label": spoken(state, k) });
    });
    scene.tests.forEach((z, t) => {
      const chosen = t === scene.test;
      if (!chosen && !scene.all) return;
      const key = `t${t}`;
      present.add(key);
      const group = handle(key, stars);
      put(group, z, star(px(z.x[0]), py(z.x[1]), chosen ? 11 : 7), [
        "test",
        chosen && "chosen",
        z.y && "one",
      ]);
      if (!busy) {
        set(group, { "aria-label": `test point ${t}, label ${z.y}, at ${said(z.x[0])}, ${said(z.x[1])}` });
      }
    });
    for (const [key, group] of shown) {
      if (present.has(key)) continue;
      group.remove();
      shown.delete(key);
    }
    const points = scene.points.map((z) => [px(z.x[0]), py(z.x[1])]);
    const labels = state.named.flatMap((id) => {
      const k = scene.points.findIndex((z) => z.id === id);
      const sign = influences && k >= 0 ? (influences[k] > 0 ? " +" : " −") : "";
      return k < 0 ? [] : [{ x: points[k][0], y: points[k][1], text: `${id}${sign}` }];
    });
    fill(names, placed(labels, points).join(""));
  }
  return { element: element("div", {}, svg, element("p", { class: "keys" }, LEGEND)), draw, follows: true };
}
