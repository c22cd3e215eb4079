// Where the model changes its mind: the line f = 0 in the plane, from the values of f on a grid.

import { output } from "./mlp.js";
import { r } from "./svg.js";

const CELLS = 56;

/**
 * Paths of the boundary and of the region where the model says 1.
 * @param {Float64Array} theta @param {number} reach the plane goes from −reach to reach
 * @param {(v: number) => number} px @param {(v: number) => number} py
 */
export function boundary(theta, reach, px, py) {
  const at = (/** @type {number} */ k) => -reach + (2 * reach * k) / CELLS;
  const f = new Float64Array((CELLS + 1) ** 2);
  for (let j = 0; j <= CELLS; j++) {
    for (let i = 0; i <= CELLS; i++) f[j * (CELLS + 1) + i] = output(theta, at(i), at(j));
  }
  let line = "";
  let region = "";
  const point = (/** @type {number} */ i, /** @type {number} */ j) => `${r(px(at(i)))} ${r(py(at(j)))}`;
  for (let j = 0; j < CELLS; j++) {
    for (let i = 0; i < CELLS; i++) {
      const corners = [
        [i, j],
        [i + 1, j],
        [i + 1, j + 1],
        [i, j + 1],
      ];
      const values = corners.map(([a, b]) => f[b * (CELLS + 1) + a]);
      const positive = values.filter((v) => v > 0).length;
      if (positive === 0) continue;
      if (positive === 4) {
        let run = i + 1; // a run of cells in one piece
        const row = j * (CELLS + 1);
        while (run < CELLS && f[row + run + 1] > 0 && f[row + CELLS + 1 + run + 1] > 0) run++;
        region += `M${point(i, j)}L${point(run, j)}L${point(run, j + 1)}L${point(i, j + 1)}Z`;
        i = run - 1;
        continue;
      }
      /** @type {string[]} */
      const inside = [];
      /** @type {string[]} */
      const crossings = [];
      for (let k = 0; k < 4; k++) {
        const next = (k + 1) % 4;
        if (values[k] > 0) inside.push(point(corners[k][0], corners[k][1]));
        if (values[k] > 0 === values[next] > 0) continue;
        const t = values[k] / (values[k] - values[next]);
        const crossing = point(
          corners[k][0] + t * (corners[next][0] - corners[k][0]),
          corners[k][1] + t * (corners[next][1] - corners[k][1]),
        );
        inside.push(crossing);
        crossings.push(crossing);
      }
      region += `M${inside.join("L")}Z`;
      for (let k = 0; k + 1 < crossings.length; k += 2) line += `M${crossings[k]}L${crossings[k + 1]}`;
    }
  }
  return { line, region };
}
