// What is minimised: R(θ, w) = Σ wᵢ ℓ(zᵢ, θ) + λ‖θ‖², for the network 2 → h (tanh) → 1, with all its derivatives.
//
// θ holds, one after the other, the weights of the hidden units (h × 2), their biases (h), the output weights (h) and
// the output bias. Without hidden units it is a logistic regression: two weights and a bias.

import { add, dot } from "./linalg.js";

/** @typedef {{x: [number, number], y: number}} Example */

/** @param {number} hidden */
export const size = (hidden) => (hidden ? 4 * hidden + 1 : 3);

/** @param {number} p */
const hiddenOf = (p) => (p === 3 ? 0 : (p - 1) / 4);

/**
 * The logit f(x, θ). If `G` is given, it receives ∇f.
 * @param {Float64Array} theta @param {number} x1 @param {number} x2 @param {Float64Array} [G]
 */
export function output(theta, x1, x2, G) {
  const h = hiddenOf(theta.length);
  if (!h) {
    G?.set([x1, x2, 1]);
    return theta[0] * x1 + theta[1] * x2 + theta[2];
  }
  let f = theta[4 * h];
  if (G) G[4 * h] = 1;
  for (let k = 0; k < h; k++) {
    const t = Math.tanh(theta[2 * k] * x1 + theta[2 * k + 1] * x2 + theta[2 * h + k]);
    const v = theta[3 * h + k];
    f += v * t;
    if (!G) continue;
    const slope = v * (1 - t * t);
    G[2 * k] = slope * x1;
    G[2 * k + 1] = slope * x2;
    G[2 * h + k] = slope;
    G[3 * h + k] = t;
  }
  return f;
}

/** σ(f) @param {number} f */
export const sigmoid = (f) => (f >= 0 ? 1 / (1 + Math.exp(-f)) : 1 - 1 / (1 + Math.exp(f)));

/**
 * ℓ(z, θ): binary cross-entropy of the logit, log(1 + exp(−f)) for label 1 and log(1 + exp(f)) for label 0.
 * @param {Float64Array} theta @param {Example} z
 */
export function loss(theta, z) {
  const f = output(theta, z.x[0], z.x[1]);
  return Math.max(f, 0) - f * z.y + Math.log1p(Math.exp(-Math.abs(f)));
}

/**
 * ∇ℓ(z, θ), without the L2 term.
 * @param {Float64Array} theta @param {Example} z
 */
export function gradient(theta, z) {
  const g = new Float64Array(theta.length);
  const residual = sigmoid(output(theta, z.x[0], z.x[1], g)) - z.y;
  for (let k = 0; k < g.length; k++) g[k] *= residual;
  return g;
}

/**
 * R(θ, w), and with it a leash, δ/2 ‖θ − anchor‖², where there is one.
 * @typedef {{delta: number, anchor: Float64Array}} Leash
 * @typedef {{data: Example[], weights: Float64Array, l2: number, leash?: Leash}} Risk
 * @param {Risk} risk @param {Float64Array} theta
 */
export function value(risk, theta) {
  let R = risk.l2 * dot(theta, theta);
  risk.data.forEach((z, i) => (R += risk.weights[i] * loss(theta, z)));
  if (risk.leash) {
    const away = add(Float64Array.from(theta), -1, risk.leash.anchor);
    R += 0.5 * risk.leash.delta * dot(away, away);
  }
  return R;
}

/**
 * R, ∇R and H = ∇²R at θ, the L2 term in all three. One example contributes
 * σ′ ∇f ∇fᵀ + (σ − y) ∇²f  to H, and ∇²f has entries for one hidden unit at a time.
 * @param {Risk} risk @param {Float64Array} theta
 */
export function derivatives(risk, theta) {
  const { data, weights, l2, leash } = risk;
  const p = theta.length;
  const h = hiddenOf(p);
  const H = new Float64Array(p * p);
  const g = Float64Array.from(theta, (t) => 2 * l2 * t);
  const J = new Float64Array(p);
  for (let i = 0; i < data.length; i++) {
    const w = weights[i];
    if (w === 0) continue;
    const [x1, x2] = data[i].x;
    const s = sigmoid(output(theta, x1, x2, J));
    const residual = w * (s - data[i].y);
    const bend = w * s * (1 - s);
    for (let a = 0; a < p; a++) {
      const Ja = J[a];
      g[a] += residual * Ja;
      const row = a * p;
      const c = bend * Ja;
      for (let b = 0; b <= a; b++) H[row + b] += c * J[b];
    }
    for (let k = 0; k < h; k++) {
      const t = J[3 * h + k];
      const slope = residual * (1 - t * t);
      const curve = -2 * t * slope * theta[3 * h + k];
      const [a, b, c, v] = [2 * k, 2 * k + 1, 2 * h + k, 3 * h + k];
      H[a * p + a] += curve * x1 * x1;
      H[b * p + a] += curve * x1 * x2;
      H[b * p + b] += curve * x2 * x2;
      H[c * p + a] += curve * x1;
      H[c * p + b] += curve * x2;
      H[c * p + c] += curve;
      H[v * p + a] += slope * x1;
      H[v * p + b] += slope * x2;
      H[v * p + c] += slope;
    }
  }
  for (let a = 0; a < p; a++) {
    H[a * p + a] += 2 * l2 + (leash ? leash.delta : 0);
    if (leash) g[a] += leash.delta * (theta[a] - leash.anchor[a]);
    for (let b = 0; b < a; b++) H[b * p + a] = H[a * p + b];
  }
  return { value: value(risk, theta), gradient: g, hessian: H };
}
