// How local the tangent is: what it misses, against the step, both on logarithmic axes. A slope of 2 is a theorem.

import { clear, element, fill, frame, line, mark, said } from "./svg.js";
import { loss } from "./mlp.js";
import { tangent } from "./weight.js";

/** @typedef {import("./app.js").State} State */

export function local() {
  const svg = element("svg:svg", { viewBox: "0 0 400 300", role: "img", "aria-label": "The remainder" });
  const words = element("p", { class: "words" });

  /** @param {State} state */
  function draw(state) {
    const { scene, found, near, stale } = state;
    svg.classList.toggle("stale", stale || !near);
    if (found.verdict !== "minimum") return clear(svg, words);
    if (!near) return;
    const test = scene.tests[scene.test];
    const now = loss(found.theta, test);
    const m = scene.points[state.chosen].m;
    const slope = tangent(state);
    const rows = near.map((stop) => {
      const step = stop.m - m;
      const change = stop.verdict === "minimum" && !stop.broken ? loss(stop.theta, test) - now : NaN;
      return { step, change, missed: Math.abs(change - slope * step) };
    });
    const f = frame({
      x: [-3, 0.35],
      y: [-10, 0.5],
      height: 300,
      xLabel: "part of the point, |ε| n",
      yLabel: "what the tangent misses",
      xTicks: [-3, -2, -1, 0],
      yTicks: [-10, -8, -6, -4, -2, 0],
      xText: (e) => said(10 ** e),
      yText: (e) => (e === 0 ? "1" : `10<tspan dy="-4" font-size="8">${said(e)}</tspan>`),
    });
    const parts = [...f.parts];
    const log = (/** @type {number} */ v) => Math.log10(v);
    const smallest = rows
      .filter((row) => row.missed > 1e-10)
      .sort((a, b) => Math.abs(a.step) - Math.abs(b.step))[0];
    if (smallest) {
      const at = (/** @type {number} */ x) => log(smallest.missed) + 2 * (x - log(Math.abs(smallest.step)));
      const top = Math.min(0.35, log(Math.abs(smallest.step)) + (0.4 - log(smallest.missed)) / 2);
      parts.push(
        `<path class="guide dashed" d="${line([
          [f.px(-3), f.py(Math.max(-10, at(-3)))],
          [f.px(top), f.py(at(top))],
        ])}"/>`,
      );
      const key = ["dots: taken away", "triangles: added", "grey, dashed: slope 2"];
      key.forEach((text, k) =>
        parts.push(`<text class="tick" x="${f.left + 10}" y="${f.py(0.2) + 15 * k}">${text}</text>`),
      );
    }
    for (const [kind, sign] of /** @type {const} */ ([
      ["curve", -1],
      ["curve lifted", 1],
    ])) {
      // Where the minimum was lost nothing is known, and the line breaks.
      const some = rows.filter((row) => Math.sign(row.step) === sign && !(row.missed <= 1e-10));
      some.sort((a, b) => Math.abs(a.step) - Math.abs(b.step));
      const at = some.map(
        (row) => /** @type {[number, number]} */ ([f.px(log(Math.abs(row.step))), f.py(log(row.missed))]),
      );
      parts.push(`<path class="${kind}" d="${line(at)}"/>`);
      for (const [x, y] of at.filter((place) => place.every(Number.isFinite)))
        parts.push(`<path class="stop" d="${mark(x, y, 2.6, sign > 0 ? 1 : 0)}"/>`);
    }
    fill(svg, parts.join(""));
    const lost = near.some((stop) => stop.broken && stop.m < m);
    const whole = rows.find((row) => Math.abs(row.step + 1) < 1e-9);
    words.textContent = whole
      ? Number.isFinite(whole.missed)
        ? `The whole of point ${scene.point} taken away (weight zero): the tangent says ${said(-slope)}, retraining ${said(whole.change)}. ` +
          `It misses ${said((100 * whole.missed) / Math.abs(slope), 2)} % of what it says` +
          `${lost ? ": on the way the minimum was lost, and this is another one." : "."}`
        : `On the way to nothing, the minimum of point ${scene.point} is lost.`
      : `Point ${scene.point} has less than its ordinary weight: there is no whole point to take away.`;
    svg.setAttribute("aria-label", `What the tangent misses, against the step. ${words.textContent}`);
  }
  return { element: element("div", {}, svg, words), draw };
}
