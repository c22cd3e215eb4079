// Predicted against actual: what the influences say about each removal, and what retraining without it did.

import { agreement } from "./influence.js";
import { clear, element, fill, frame, line, mark, roundUp, said, signed } from "./svg.js";

/** @typedef {import("./app.js").App} App @typedef {import("./app.js").State} State */

/** @param {App} app */
export function cloud(app) {
  const svg = element("svg:svg", {
    viewBox: "0 0 400 320",
    role: "img",
    "aria-label": "Predicted against actual change",
  });
  const words = element("p", { class: "words" });

  /** @param {Event} event */
  const id = (event) => /** @type {Element} */ (event.target).closest("[data-id]")?.getAttribute("data-id");
  svg.addEventListener("pointermove", (/** @type {Event} */ event) =>
    app.hover(id(event) == null ? null : Number(id(event))),
  );
  svg.addEventListener("pointerleave", () => app.hover(null));
  svg.addEventListener(
    "click",
    (/** @type {Event} */ event) => id(event) != null && app.choose("p", Number(id(event))),
  );

  /** @param {State} state */
  function draw({ scene, found: { verdict }, pairs, hovered, stale }) {
    svg.classList.toggle("stale", stale);
    if (verdict !== "minimum") return clear(svg, words);
    if (!pairs) {
      fill(svg, (words.textContent = ""));
      return;
    }
    const predicted = pairs.flatMap((row) => [...row.predicted]);
    const actual = pairs.flatMap((row) => [...row.actual]);
    const both = [...predicted, ...actual].filter(Number.isFinite);
    const far = roundUp(Math.max(...both.map(Math.abs), 1e-9));
    const low = Math.min(...both) < -0.25 * far ? -far : -0.25 * far;
    const high = Math.max(...both) > 0.25 * far ? far : 0.25 * far;
    const f = frame({
      x: [low, high],
      y: [low, high],
      xLabel: "predicted change of the test loss",
      yLabel: "actual change",
    });
    const parts = [
      ...f.parts,
      `<path class="guide dashed" d="${line([
        [f.px(low), f.py(low)],
        [f.px(high), f.py(high)],
      ])}"/>`,
    ];
    const found = agreement(predicted, actual);
    if (found) {
      const fit = (/** @type {number} */ x) =>
        /** @type {[number, number]} */ ([f.px(x), f.py(found.slope * x + found.intercept)]);
      const ends = /** @type {[number, number]} */ ([Math.min(...predicted), Math.max(...predicted)]);
      parts.push(`<path class="fit" d="${line([fit(ends[0]), fit(ends[1])])}"/>`);
    }
    for (const row of pairs) {
      row.predicted.forEach((x, k) => {
        const z = scene.points[k];
        if (!z || !Number.isFinite(x + row.actual[k])) return;
        const chosen = z.id === scene.point || z.id === hovered;
        const size = (chosen ? 1.75 : 1) * (pairs.length > 1 ? 2.2 : 4);
        const d = mark(f.px(x), f.py(row.actual[k]), size, z.y);
        parts.push(
          `<path class="pair ${x < 0 ? "harmful" : "helpful"}${chosen ? " chosen" : ""}" data-id="${z.id}" d="${d}"/>`,
        );
      });
    }
    fill(svg, parts.join(""));
    const missing = pairs[0].actual.filter((v) => !Number.isFinite(v)).length;
    const refused = missing
      ? ` Without ${missing} of the points, training finds no minimum: they are left out.`
      : "";
    words.textContent = found
      ? `r = ${found.r.toFixed(3)}, slope ${found.slope.toFixed(2)}, intercept ${signed(found.intercept)}, ` +
        `largest error ${said(found.largest)}; ${found.n} pairs.${refused}`
      : `There is nothing to compare.${refused}`;
    svg.setAttribute("aria-label", `Predicted against actual change of the test loss. ${words.textContent}`);
  }
  return { element: element("div", {}, svg, words), draw };
}
