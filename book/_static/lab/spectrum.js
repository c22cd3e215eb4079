// The spectrum of H, and whether what was found is a minimum.

import { element, fill, frame, mark, r, said } from "./svg.js";

/** @typedef {import("./app.js").State} State */

export function spectrum() {
  const svg = element("svg:svg", { viewBox: "0 0 400 260", role: "img", "aria-label": "Eigenvalues of H" });

  /** @param {State} state */
  function draw({ eigen, heard, scene, found }) {
    const { d } = eigen();
    const p = d.length;
    const floor = 1e-5;
    const top = Math.ceil(Math.log10(Math.max(d[p - 1], 1e-2)) + 0.05);
    const exponents = Array.from({ length: top + 6 }, (_, k) => k - 5);
    const f = frame({
      x: [0, p + 1],
      y: [-5.6, top],
      height: 260,
      xLabel: "direction, softest first",
      yLabel: "eigenvalue of H",
      xTicks: [1, ...[10, 20, 30, 40].filter((k) => k < p - 1), p],
      yTicks: exponents,
      yText: (e) => (e === 0 ? "1" : `10<tspan dy="-4" font-size="8">${said(e)}</tspan>`),
    });
    const parts = [...f.parts];
    const level = (/** @type {number} */ v) => f.py(v > floor ? Math.log10(v) : -5.4);
    if (scene.l2 > floor / 2) {
      parts.push(`<path class="guide dashed" d="M${f.left} ${r(level(2 * scene.l2))}H${f.right}"/>`);
      parts.push(
        `<text class="tick" x="${f.right}" y="${r(level(2 * scene.l2) - 5)}" text-anchor="end">2λ</text>`,
      );
    }
    const loud = heard();
    d.forEach((v, k) => {
      const kind = v <= 0 ? "negative" : loud[k] ? "heard" : "silent";
      parts.push(`<path class="eigenvalue ${kind}" d="${mark(f.px(k + 1), level(v), 4, v <= 0 ? 1 : 0)}"/>`);
    });
    const silent = loud.filter((one) => !one).length;
    const key = [silent && "hollow: no training point pulls there", d[0] <= 0 && "triangles: not positive"];
    key.filter(Boolean).forEach((text, k) =>
      parts.push(`<text class="tick" x="${f.left + 10}" y="${f.top + 12 + 15 * k}">${text}</text>`),
    );
    fill(svg, parts.join(""));
    svg.setAttribute(
      "aria-label",
      `The ${p} eigenvalues of H, from ${said(d[0])} to ${said(d[p - 1])}. ${silent} belong to directions in which no ` +
        `training point pulls. ${found.verdict === "minimum" ? "All are positive." : ""}`,
    );
  }
  return { element: svg, draw };
}
