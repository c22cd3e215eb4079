// The influence of every training point on a test loss, what it predicts for a removal, and what a removal really does.

import { cholesky, dot, solve } from "./linalg.js";
import { gradient, loss } from "./mlp.js";
import { minimise } from "./newton.js";

/** @typedef {import("./mlp.js").Example} Example */
/** @typedef {import("./mlp.js").Risk} Risk */
/** @typedef {import("./newton.js").Found} Found */
/** @typedef {"mean" | "zero"} Convention */

/**
 * ℐᵢ = −∇ℓ(z_test)ᵀ (H + δI)⁻¹ ∇ℓ(zᵢ) at a minimum: positive is harmful, negative helpful. Null where H + δI is not
 * positive definite.
 * @param {Risk} risk @param {Found} found @param {Example} test @param {number} [damping]
 */
export function influence(risk, found, test, damping = 0) {
  const L = cholesky(found.hessian, found.theta.length, damping);
  if (!L) return null;
  const answer = solve(L, gradient(found.theta, test));
  return Float64Array.from(risk.data, (z) => -dot(gradient(found.theta, z), answer));
}

/**
 * The first-order change of the test loss on leaving each point out. "zero": its weight goes to 0. "mean": the others
 * share it in proportion, so that the weights still add up to what they did.
 * @param {Float64Array} I @param {Float64Array} w @param {Convention} convention
 */
export function predictedChange(I, w, convention) {
  if (convention === "zero") return I.map((value, i) => -w[i] * value);
  const total = w.reduce((a, b) => a + b, 0);
  const mean = dot(I, w);
  return I.map((value, i) => (-w[i] / (total - w[i])) * (total * value - mean));
}

/**
 * The weights of training without point i.
 * @param {Float64Array} w @param {number} i @param {Convention} convention
 */
export function without(w, i, convention) {
  const total = w.reduce((a, b) => a + b, 0);
  const grow = convention === "mean" ? total / (total - w[i]) : 1;
  return w.map((value, j) => (j === i ? 0 : grow * value));
}

/**
 * Train without point i, from the minimum with it; on a leash of strength δ, if there is one.
 * @param {Risk} risk @param {Found} found @param {number} i @param {Convention} convention @param {number} [leash]
 */
export function retrain(risk, found, i, convention, leash = 0) {
  const weights = without(risk.weights, i, convention);
  return minimise(
    { ...risk, weights, leash: leash ? { delta: leash, anchor: found.theta } : undefined },
    found.theta,
  );
}

/**
 * What retraining did to the test loss, loss after minus loss before; NaN where no minimum was found.
 * @param {Found} found @param {Found} after @param {Example} test
 */
export function actualChange(found, after, test) {
  return after.verdict === "minimum" ? loss(after.theta, test) - loss(found.theta, test) : NaN;
}

/**
 * How well predictions agree with what happened: Pearson's r, the line actual = slope · predicted + intercept, and the
 * largest error. Pairs that are not finite are left out; null where fewer than three are left or all are the same.
 * @param {ArrayLike<number>} predicted @param {ArrayLike<number>} actual
 */
export function agreement(predicted, actual) {
  const x = [];
  const y = [];
  for (let k = 0; k < predicted.length; k++) {
    if (!Number.isFinite(predicted[k] + actual[k])) continue;
    x.push(predicted[k]);
    y.push(actual[k]);
  }
  const n = x.length;
  const mean = (/** @type {number[]} */ v) => v.reduce((a, b) => a + b, 0) / n;
  const [mx, my] = [mean(x), mean(y)];
  let [xx, xy, yy, largest] = [0, 0, 0, 0];
  for (let k = 0; k < n; k++) {
    xx += (x[k] - mx) ** 2;
    yy += (y[k] - my) ** 2;
    xy += (x[k] - mx) * (y[k] - my);
    largest = Math.max(largest, Math.abs(x[k] - y[k]));
  }
  if (n < 3 || !(xx > 0) || !(yy > 0)) return null;
  const slope = xy / xx;
  return { n, r: xy / Math.sqrt(xx * yy), slope, intercept: my - slope * mx, largest };
}
