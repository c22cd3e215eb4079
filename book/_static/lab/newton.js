// Training: Newton's method, damped where it must be, and a certificate that what was found is a minimum.

import { add, cholesky, dot, norm, solve, times } from "./linalg.js";
import { derivatives, gradient, value } from "./mlp.js";

/** @typedef {import("./mlp.js").Risk} Risk */
/**
 * Where training ended. `verdict` is "minimum"; or says why there is none: "moving" (the gradient has not vanished),
 * "saddle" (it has, but H is not positive definite, or no more than by rounding), "overflow".
 * @typedef {{theta: Float64Array, value: number, gradient: Float64Array, hessian: Float64Array, norm: number,
 *   steps: number, verdict: "minimum" | "moving" | "saddle" | "overflow"}} Found
 */

const EPS = 2 ** -52;
/** How small ‖∇R‖ must become against the gradients of single examples. */
export const TOLERANCE = 1e-9;

/**
 * A certified minimum of R(·, w) from `start`, or a verdict.
 * Each step is −(H + μI)⁻¹∇R, with μ = 0 wherever H is positive definite and Newton's own step is good: one that lowers
 * R by about as much as the quadratic says. So it cannot climb to a saddle.
 * @param {Risk} risk @param {Float64Array} start @param {number} [maxSteps]
 * @returns {Found}
 */
export function minimise(risk, start, maxSteps = 300) {
  let theta = start;
  let here = derivatives(risk, theta);
  let size = norm(here.gradient);
  let mu = 0;
  const least = 1e-3 * meanDiagonal(here.hessian, theta.length);
  const unit = scale(risk, theta, here.hessian);
  let steps = 0;
  for (; steps < maxSteps && size > 1e-15 * unit && mu < 1e12 * least; steps++) {
    const step = direction(here, mu);
    const next = step && add(Float64Array.from(theta), -1, step);
    const promised = step ? dot(step, here.gradient) - 0.5 * dot(step, times(here.hessian, step)) : 0;
    const kept = next ? here.value - value(risk, next) : NaN;
    const rounding = 4 * EPS * Math.abs(here.value);
    // Where R no longer shows a difference, its gradient does.
    const visible = promised > 4 * rounding;
    const there =
      next && (visible ? kept > 1e-3 * promised : kept >= -rounding) ? derivatives(risk, next) : null;
    if (!next || !there || !(visible || norm(there.gradient) < size)) {
      if (next && !visible && size < 1e-3 * TOLERANCE * unit) break; // no more digits
      mu = Math.max(4 * mu, least);
      continue;
    }
    if (visible && kept < 0.1 * promised) mu = Math.max(4 * mu, least);
    else if (!visible || kept > 0.7 * promised) mu = mu > least / 64 ? mu / 8 : 0;
    [theta, here, size] = [next, there, norm(there.gradient)];
  }
  return { theta, ...here, norm: size, steps, verdict: verdict(risk, theta, here.hessian, size) };
}

/** @param {{gradient: Float64Array, hessian: Float64Array}} here @param {number} mu */
function direction(here, mu) {
  const L = cholesky(here.hessian, here.gradient.length, mu);
  return L && solve(L, here.gradient);
}

/** @param {Float64Array} H @param {number} p */
function meanDiagonal(H, p) {
  let sum = 0;
  for (let k = 0; k < p; k++) sum += Math.abs(H[k * p + k]);
  return sum / p;
}

/**
 * What ‖∇R‖ is small against: the root mean square of the single gradients, or ‖Hθ‖ where these vanish.
 * @param {Risk} risk @param {Float64Array} theta @param {Float64Array} H
 */
export function scale(risk, theta, H) {
  let squares = 0;
  let total = 0;
  risk.data.forEach((z, i) => {
    const g = gradient(theta, z);
    squares += dot(g, g);
    total += Math.abs(risk.weights[i]);
  });
  return Math.max(Math.sqrt(squares / risk.data.length) * total, norm(times(H, theta)));
}

/**
 * Whether θ is a nondegenerate minimum: no gradient is left, and the smallest eigenvalue of H is positive and means
 * something. It must exceed its own rounding; and the minimum, about ‖∇R‖ / smallest away, must be near. Whether it
 * exceeds a number τ is whether H − τI has a Cholesky factor.
 * @param {Risk} risk @param {Float64Array} theta @param {Float64Array} H @param {number} size ‖∇R‖
 * @returns {Found["verdict"]}
 */
function verdict(risk, theta, H, size) {
  if (!Number.isFinite(size)) return "overflow";
  if (!(size <= TOLERANCE * scale(risk, theta, H))) return "moving";
  const p = theta.length;
  const least = Math.max(p * EPS * norm(H), size / (0.01 * (1 + norm(theta))));
  return cholesky(H, p, -least) ? "minimum" : "saddle";
}
