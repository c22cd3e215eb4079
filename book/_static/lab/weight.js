// The test loss as the weight of one point changes, retrained at every dot; and its tangent, the influence.

import { dot } from "./linalg.js";
import { loss } from "./mlp.js";
import { clear, element, fill, frame, line, mark, r, said, signed } from "./svg.js";
import { weights } from "./scene.js";

/** @typedef {import("./app.js").App} App @typedef {import("./app.js").State} State */

/**
 * How fast the test loss changes with m, where point i weighs m times its ordinary weight: ℐᵢ/n where the others keep
 * theirs, (ℐᵢ − Σ wⱼℐⱼ)/Σm where all share.
 * @param {State} state
 */
export function tangent({ scene, influences, chosen }) {
  if (!influences) return NaN;
  const I = influences[chosen];
  if (scene.retrain === "zero") return I / scene.points.length;
  const total = scene.points.reduce((sum, z) => sum + z.m, 0);
  return (I - dot(influences, weights(scene, "mean"))) / total;
}

/**
 * Where the minimum is lost: where its branch turns back, or, where that is too far away to be followed, the stop before
 * which the way was broken.
 * @param {State} state
 */
export function folds({ scene, chosen, way, branches }) {
  const { m } = scene.points[chosen];
  return [-1, 1].flatMap((side) => {
    const beyond = (/** @type {{m: number}} */ stop) => Math.sign(stop.m - m) === side;
    const broken = (way ?? []).filter((stop) => stop.broken && beyond(stop));
    const turns = branches.flatMap((line) => line.find((stop) => !stop.stable) ?? []).filter(beyond);
    const nearest = broken.sort((a, b) => side * (a.m - b.m))[0];
    return nearest ? [(turns[0] ?? nearest).m] : [];
  });
}

/** @param {App} app */
export function weight(app) {
  const svg = element("svg:svg", {
    viewBox: "0 0 400 300",
    role: "img",
    "aria-label": "Test loss against weight",
  });
  const words = element("p", { class: "words" });

  /** @param {State} state */
  function draw(state) {
    const { scene, found, way, branches, stale } = state;
    svg.classList.toggle("stale", stale || !way);
    if (found.verdict !== "minimum") return clear(svg, words);
    const test = scene.tests[scene.test];
    const now = loss(found.theta, test);
    const m = scene.points[state.chosen].m;
    const slope = tangent(state);
    const curve = (way ?? []).map((stop) => ({
      ...stop,
      loss: stop.verdict === "minimum" ? loss(stop.theta, test) : NaN,
    }));
    const losses = [now, ...curve.map((stop) => stop.loss)].filter(Number.isFinite);
    const most = Math.max(3, Math.ceil(m));
    const [least, largest] = [Math.min(...losses), Math.max(...losses)];
    const room = Math.max(0.25 * (largest - least), 0.02);
    const f = frame({
      x: [0, most],
      y: [Math.max(0, least - room), largest + room],
      height: 300,
      xLabel: `weight of point ${scene.point}, in units of 1/n`,
      yLabel: `loss at test point ${scene.test}`,
    });
    const parts = [...f.parts];
    const inside = (/** @type {number} */ v) => Math.max(f.top, Math.min(f.bottom, v));
    const on = (/** @type {number} */ x) => now + slope * (x - m);
    parts.push(
      `<clipPath id="inside-${app.id}"><rect x="${f.left}" y="${f.top}" width="${f.right - f.left}" height="${f.bottom - f.top}"/></clipPath>`,
    );
    parts.push(
      `<path class="guide" clip-path="url(#inside-${app.id})" d="${line([
        [f.px(0), f.py(on(0))],
        [f.px(most), f.py(on(most))],
      ])}"/>`,
    );
    parts.push(`<path class="axis faint" d="M${r(f.px(1))} ${f.top}V${f.bottom}"/>`);
    const runs = pieces(curve, { m, loss: now });
    for (const run of runs)
      parts.push(`<path class="curve" d="${line(run.map((s) => [f.px(s.m), f.py(s.loss)]))}"/>`);
    for (const branch of branches) {
      // The part of the branch beyond the fold: saddles.
      const bend = branch.findIndex((stop) => !stop.stable);
      const at = branch
        .slice(bend - 1)
        .map(({ m, theta }) => /** @type {[number, number]} */ ([f.px(m), f.py(loss(theta, test))]));
      if (bend > 0)
        parts.push(`<path class="curve saddle" clip-path="url(#inside-${app.id})" d="${line(at)}"/>`);
    }
    for (const stop of curve) {
      if (Number.isFinite(stop.loss))
        parts.push(`<path class="stop" d="${mark(f.px(stop.m), f.py(stop.loss), 2.6, 0)}"/>`);
    }
    const lost = folds(state);
    for (const fold of lost) {
      parts.push(`<path class="fold" d="M${r(f.px(fold))} ${f.top}V${f.bottom}"/>`);
      parts.push(
        `<text class="tick" x="${r(f.px(fold) - 4)}" y="${f.top + 11}" text-anchor="end">fold</text>`,
      );
    }
    parts.push(`<path class="chosen stop" d="${mark(f.px(m), inside(f.py(now)), 6, 0)}"/>`);
    fill(svg, parts.join(""));
    const place = lost.length
      ? ` At ${lost.map((fold) => `${said(fold)}/n`).join(" and at ")} the minimum is gone; beyond, training ends in another one.`
      : "";
    words.textContent = `At weight ${said(m)}/n the test loss is ${now.toFixed(4)}; its tangent changes by ${signed(slope)} for each 1/n.${place}`;
    svg.setAttribute("aria-label", words.textContent);
  }
  return { element: element("div", {}, svg, words), draw };
}

/**
 * The curve in pieces, cut where the minimum was lost; the piece in the middle goes through where we are.
 * @param {{m: number, loss: number, broken: boolean}[]} curve @param {{m: number, loss: number}} here
 */
function pieces(curve, here) {
  const below = curve.filter((stop) => stop.m < here.m).sort((a, b) => b.m - a.m);
  const above = curve.filter((stop) => stop.m > here.m).sort((a, b) => a.m - b.m);
  /** @type {{m: number, loss: number}[][]} */
  const done = [];
  for (const side of [below, above]) {
    /** @type {{m: number, loss: number}[]} */
    let run = [here];
    for (const stop of side) {
      if (stop.broken) {
        done.push(run);
        run = [];
      }
      run.push(stop);
    }
    done.push(run);
  }
  return done;
}
