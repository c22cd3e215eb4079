// What takes longer than a frame, and is done in a worker: many trainings, each from where the one before it ended.

import { add, cholesky, dot, norm, solve, times } from "./linalg.js";
import { derivatives, gradient } from "./mlp.js";
import { minimise } from "./newton.js";
import { retrain } from "./influence.js";

/** @typedef {import("./mlp.js").Risk} Risk */
/** @typedef {import("./newton.js").Found} Found */
/** @typedef {import("./influence.js").Convention} Convention */
/** @typedef {{theta: Float64Array, verdict: Found["verdict"]}} End */

/** @typedef {{data: Risk["data"], l2: number, ms: number[], i: number, convention: Convention}} Problem */

/** @param {Found} found @returns {End} */
const end = ({ theta, verdict }) => ({ theta, verdict });

/**
 * Train without each point in turn.
 * @param {Risk} risk @param {Float64Array} theta the minimum with all points
 * @param {Convention} convention @param {number} leash
 */
export function retrainings(risk, theta, convention, leash) {
  const found = minimise(risk, theta);
  return risk.data.map((_, i) => end(retrain(risk, found, i, convention, leash)));
}

/**
 * The weights when point i weighs m times its ordinary weight, and the others what they weigh now.
 * @param {number[]} ms all points' m @param {number} i @param {number} m @param {Convention} convention
 */
export function weighted(ms, i, m, convention) {
  const all = Float64Array.from(ms, (value, j) => (j === i ? m : value));
  const total = convention === "mean" ? all.reduce((a, b) => a + b, 0) : all.length;
  return all.map((value) => value / total);
}

/**
 * Follow the minimum from `theta` while the weight of point i goes from `from` to each of `to`, in order. The way ends
 * (`broken`) where it does not lead back: there the old minimum is gone, and training fell into another.
 * @param {Problem} problem @param {Float64Array} theta @param {number} from @param {number[]} to
 */
export function follow({ data, l2, ms, i, convention }, theta, from, to) {
  /** @type {{m: number, theta: Float64Array, verdict: Found["verdict"], broken: boolean}[]} */
  const way = [];
  const risk = (/** @type {number} */ m) => ({ data, l2, weights: weighted(ms, i, m, convention) });
  let [m, here] = [from, theta];
  for (const next of to) {
    const there = minimise(risk(next), here);
    const back = minimise(risk(m), there.theta);
    const broken = norm(add(Float64Array.from(back.theta), -1, here)) > 1e-4 * (1 + norm(here));
    way.push({ m: next, ...end(there), broken });
    [m, here] = [next, there.theta];
  }
  return way;
}

/**
 * Where the minimum of the risk goes when the weight of point i goes from `from` to `to`: the straight way there, the
 * slope of the risk along it with the weights of before and after, and how far along it −H⁻¹GᵀΔw was to lead. Null where
 * one of the two is no minimum.
 * @param {Problem} problem @param {Float64Array} theta @param {number} from @param {number} to
 */
export function section({ data, l2, ms, i, convention }, theta, from, to) {
  const [before, after] = [from, to].map((m) => ({ data, l2, weights: weighted(ms, i, m, convention) }));
  const here = minimise(before, theta);
  const there = minimise(after, here.theta);
  if (here.verdict !== "minimum" || there.verdict !== "minimum") return null;
  const way = add(Float64Array.from(there.theta), -1, here.theta);
  const length = norm(way);
  if (!(length > 1e-9)) return null;
  const q = way.map((v) => v / length);
  const drift = drifting(here, data, before.weights, after.weights);
  if (!drift) return null;
  const at = Array.from({ length: 61 }, (_, k) => (length * (k - 15)) / 30);
  const slope = (/** @type {Risk} */ risk) => (/** @type {number} */ s) =>
    dot(q, derivatives(risk, add(Float64Array.from(here.theta), s, q)).gradient);
  return {
    from,
    to,
    at,
    length,
    predicted: dot(q, drift),
    stiffness: dot(q, times(here.hessian, q)),
    before: at.map(slope(before)),
    after: at.map(slope(after)),
  };
}

/**
 * −H⁻¹GᵀΔw: where the minimum sets out for when the weights change from w to v.
 * @param {Found} found @param {Risk["data"]} data @param {Float64Array} w @param {Float64Array} v
 */
function drifting(found, data, w, v) {
  const L = cholesky(found.hessian, found.theta.length);
  const force = new Float64Array(found.theta.length);
  data.forEach((z, j) => add(force, w[j] - v[j], gradient(found.theta, z)));
  return L && solve(L, force);
}

/**
 * The branch of stationary points that the minimum lies on, while the weight of point i goes towards `to`: it is
 * followed by its length and not by the weight, so that it can be followed round a fold. From each stop a stride leads on
 * in the direction q from the one before; there, Newton's method finds θ and the part a of the way that the weights
 * have gone, together:  H dθ + b da = −∇R,  qᵀdθ = 0.
 * @param {Problem} problem @param {Float64Array} theta the minimum @param {number} [to] @param {number} [stops]
 */
export function branch({ data, l2, ms, i, convention }, theta, to = 0, stops = 200) {
  const [w, v] = [ms[i], to].map((m) => weighted(ms, i, m, convention));
  const other = ms.findIndex((m, j) => j !== i && m > 0);
  const found = minimise({ data, l2, weights: w }, theta);
  const drift = found.verdict === "minimum" && drifting(found, data, w, v);
  const line = [];
  if (!drift) return null;
  let q = drift.map((value) => value / norm(drift));
  const stride = Math.min(norm(drift) / 40, norm(theta) / 200);
  let here = Float64Array.from(found.theta);
  let a = 0;
  for (let k = 0; k <= stops; k++) {
    const last = Float64Array.from(here);
    if (k) add(here, stride, q);
    let left = Infinity;
    let stable = false;
    for (let step = 0; step < 20; step++) {
      const risk = { data, l2, weights: w.map((value, j) => value + a * (v[j] - value)) };
      const { gradient: g, hessian } = derivatives(risk, here);
      const p = q.length;
      stable = cholesky(hessian, p) !== null;
      left = norm(g);
      if (left < 1e-10) break;
      // Only along q may H be soft or curve downwards, and there dθ = 0: any stiffness may be added.
      const L = cholesky(
        hessian.map((h, k) => h + 10 * q[Math.floor(k / p)] * q[k % p]),
        p,
      );
      if (!L) break;
      const b = new Float64Array(p);
      data.forEach((z, j) => add(b, v[j] - w[j], gradient(here, z)));
      const [x, y] = [solve(L, g), solve(L, b)];
      const da = -dot(q, x) / dot(q, y);
      add(add(here, -1, x), -da, y);
      a += da;
    }
    if (!(left < 1e-8) || Math.abs(a) > 1.5) break;
    const at = (/** @type {number} */ j) => w[j] + a * (v[j] - w[j]);
    line.push({ a, m: (ms[other] * at(i)) / at(other), theta: Float64Array.from(here), stable });
    if (a > 1) break;
    const gone = add(Float64Array.from(here), -1, last);
    if (k) q = gone.map((value) => value / norm(gone));
  }
  return line;
}

/**
 * Train from `start`.
 * @param {Risk} risk @param {Float64Array} start
 */
export function train(risk, start) {
  const { theta, verdict, value } = minimise(risk, start);
  return { theta, verdict, value };
}

/** @type {Record<string, (...args: any[]) => any>} What the worker does, by name. */
export const JOBS = { retrainings, follow, section, branch, train };
