// Why the minimum moves: the slope of the risk is shifted by the point's own, and its zero is somewhere else.

import { clear, element, fill, frame, line, mark, r, said } from "./svg.js";

/** @typedef {import("./app.js").App} App @typedef {import("./app.js").State} State */

/** @param {App} app */
export function lift(app) {
  const svg = element("svg:svg", {
    viewBox: "0 0 400 300",
    role: "img",
    "aria-label": "The slope of the risk",
  });
  const words = element("p", { class: "words" });

  /** @param {State} state */
  function draw({ scene, found, lifted, stale }) {
    svg.classList.toggle("stale", stale || !lifted);
    if (found.verdict !== "minimum") return clear(svg, words);
    if (!lifted) return;
    const { at, before, after, stiffness, length, predicted, from, to } = lifted;
    const shown = [...before, ...after];
    const f = frame({
      x: [at[0], at[at.length - 1]],
      y: [Math.min(...shown), Math.max(...shown)],
      height: 300,
      xLabel: "distance on the straight way to the new minimum",
      yLabel: "slope of the risk",
    });
    const parts = [...f.parts, `<path class="axis" d="M${f.left} ${r(f.py(0))}H${f.right}"/>`];
    parts.push(
      `<clipPath id="lift-${app.id}"><rect x="${f.left}" y="${f.top}" width="${f.right - f.left}" height="${f.bottom - f.top}"/></clipPath>`,
    );
    const draw = (/** @type {string} */ kind, /** @type {number[]} */ values) =>
      `<path class="${kind}" clip-path="url(#lift-${app.id})" d="${line(values.map((v, k) => [f.px(at[k]), f.py(v)]))}"/>`;
    parts.push(
      draw(
        "guide",
        at.map((s) => stiffness * s),
      ),
      draw("curve", before),
      draw("curve lifted", after),
    );
    for (const k of [15, 22, 29]) {
      const [x, y, z] = [f.px(at[k]), f.py(before[k]), f.py(after[k])];
      const tip = Math.sign(z - y) * Math.min(5, Math.abs(z - y));
      parts.push(
        `<path class="lifting" d="M${r(x)} ${r(y)}V${r(z)}m-4 ${r(-tip)}l4 ${r(tip)}l4 ${r(-tip)}"/>`,
      );
    }
    parts.push(`<path class="stop" d="${mark(f.px(0), f.py(0), 5, 0)}"/>`);
    parts.push(`<path class="chosen stop" d="${mark(f.px(length), f.py(0), 6, 0)}"/>`);
    if (predicted <= at[at.length - 1])
      parts.push(`<path class="cross" d="M${r(f.px(predicted) - 6)} ${r(f.py(0) - 6)}l12 12m0 -12l-12 12"/>`);
    fill(svg, parts.join(""));
    words.textContent =
      `Weight of point ${scene.point} from ${said(from)}/n to ${said(to)}/n: the slope is shifted, and its zero moves by ` +
      `${said(length)}. The cross is where −H⁻¹g said: ${said(predicted)}${predicted > at[at.length - 1] ? " (outside)" : ""}.`;
    svg.setAttribute("aria-label", words.textContent);
  }
  return { element: element("div", {}, svg, words), draw };
}
