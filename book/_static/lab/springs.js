// Springs: H in its own directions. A point pulls along each with some force; the direction gives way by the force over
// its stiffness; the test loss minds. The products add up to the influence.

import { dot } from "./linalg.js";
import { gradient } from "./mlp.js";
import { clear, element, fill, frame, line, r, roundUp, said, signed } from "./svg.js";

/** @typedef {import("./app.js").State} State */

/**
 * What point i does in each direction of H: the force −qᵀg, the answer −qᵀg / (d + δ), and its share of the influence.
 * @param {State} state
 */
export function bySpring({ scene, found, eigen, chosen }) {
  const { d, Q } = eigen();
  const g = gradient(found.theta, scene.points[chosen]);
  const test = gradient(found.theta, scene.tests[scene.test]);
  const force = Q.map((q) => -dot(q, g));
  const answer = force.map((v, k) => v / (d[k] + scene.damping));
  return { force, answer, share: answer.map((v, k) => v * dot(Q[k], test)) };
}

export function springs() {
  const svg = element("svg:svg", { viewBox: "0 0 400 400", role: "img", "aria-label": "Springs" });
  const words = element("p", { class: "words" });

  /** @param {State} state */
  function draw(state) {
    if (state.found.verdict !== "minimum") return clear(svg, words);
    const { force, answer, share } = bySpring(state);
    const p = force.length;
    const sum = share.map(
      (
        (total) => (v) =>
          (total += v)
      )(0),
    );
    const rows = [
      { values: force.map(Math.abs), label: "it pulls", kind: "force" },
      { values: answer.map(Math.abs), label: "it gives way", kind: "answer" },
      { values: share, label: "influence", kind: "share", sum },
    ];
    const drawing = rows
      .map(({ values, label, kind, sum }, row) => {
        const all = [...values, ...(sum ?? []), 0];
        const far = roundUp(Math.max(...all.map(Math.abs)));
        const low = Math.min(...all) < 0 ? Math.min(-0.1 * far, 1.05 * Math.min(...all)) : 0;
        const high = Math.max(...all) > 0 ? Math.max(0.1 * far, 1.05 * Math.max(...all)) : 0;
        const f = frame({
          x: [0, p + 1],
          y: [low, high],
          height: 140,
          yLabel: label,
          xLabel: row === 2 ? "direction of H, softest first" : "",
          xTicks: row === 2 ? [1, ...[10, 20, 30, 40].filter((k) => k < p - 1), p] : [],
        });
        const wide = (0.7 * (f.right - f.left)) / (p + 1);
        const bars = values.map((v, k) => {
          const [a, b] = [f.py(Math.max(v, 0)), f.py(Math.min(v, 0))];
          return `<rect class="bar ${kind}" x="${r(f.px(k + 1) - wide / 2)}" y="${r(a)}" width="${r(wide)}" height="${r(b - a)}"/>`;
        });
        const steps = sum ? `<path class="fit" d="${line(sum.map((v, k) => [f.px(k + 1), f.py(v)]))}"/>` : "";
        return `<g transform="translate(0 ${row * 125})">${f.parts.join("")}<path class="axis" d="M${f.left} ${r(f.py(0))}H${f.right}"/>${bars.join("")}${steps}</g>`;
      })
      .join("");
    fill(svg, drawing);
    const best = (/** @type {number[]} */ v) =>
      v.reduce((a, x, k) => (Math.abs(x) > Math.abs(v[a]) ? k : a), 0);
    const [pull, way] = [best(force), best(answer)];
    const { d } = state.eigen();
    words.textContent =
      `Point ${state.scene.point} pulls hardest in direction ${pull + 1} (stiffness ${said(d[pull])}), and moves the ` +
      `model most in direction ${way + 1} (stiffness ${said(d[way])}). In the lowest row the bars, summed by the line, add up to its influence, ${signed(sum[p - 1], 3)}.`;
    svg.setAttribute("aria-label", words.textContent);
  }
  return { element: element("div", {}, svg, words), draw };
}
