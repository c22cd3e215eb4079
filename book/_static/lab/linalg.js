// Dense symmetric matrices, small enough to be factored between two frames. A matrix is its rows, one after the other.

/** @typedef {Float64Array} Vector */
/** @typedef {Float64Array} Matrix */

const EPS = 2 ** -52;

/** @param {Vector} a @param {Vector} b */
export function dot(a, b) {
  let sum = 0;
  for (let k = 0; k < a.length; k++) sum += a[k] * b[k];
  return sum;
}

/** @param {Vector} a */
export function norm(a) {
  return Math.sqrt(dot(a, a));
}

/**
 * y ← y + c x
 * @param {Vector} y @param {number} c @param {Vector} x
 */
export function add(y, c, x) {
  for (let k = 0; k < y.length; k++) y[k] += c * x[k];
  return y;
}

/**
 * A x
 * @param {Matrix} A @param {Vector} x
 */
export function times(A, x) {
  const n = x.length;
  const y = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    let sum = 0;
    for (let j = 0; j < n; j++) sum += A[i * n + j] * x[j];
    y[i] = sum;
  }
  return y;
}

/**
 * The lower triangular L with A + shift·I = L Lᵀ, or null where that is not positive definite. A singular matrix may
 * pass by an accident of rounding; then a pivot is little more than rounding, and it does not pass here.
 * @param {Matrix} A @param {number} n @param {number} [shift]
 * @returns {Matrix | null}
 */
export function cholesky(A, n, shift = 0) {
  const L = new Float64Array(n * n);
  let largest = 0;
  for (let i = 0; i < n; i++) largest = Math.max(largest, A[i * n + i] + shift);
  const least = 100 * n * EPS * largest;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = A[i * n + j] + (i === j ? shift : 0);
      for (let k = 0; k < j; k++) sum -= L[i * n + k] * L[j * n + k];
      if (i !== j) L[i * n + j] = sum / L[j * n + j];
      else if (sum > least) L[i * n + i] = Math.sqrt(sum);
      else return null;
    }
  }
  return L;
}

/**
 * x with L Lᵀ x = b: down one triangle, up the other. No inverse is formed.
 * @param {Matrix} L @param {Vector} b
 */
export function solve(L, b) {
  const n = b.length;
  const x = Float64Array.from(b);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) x[i] -= L[i * n + k] * x[k];
    x[i] /= L[i * n + i];
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) x[i] -= L[k * n + i] * x[k];
    x[i] /= L[i * n + i];
  }
  return x;
}

/**
 * Eigenvalues d in ascending order and eigenvectors Q (row k belongs to d[k]) of a symmetric matrix, by Jacobi's
 * rotations: each makes one entry beside the diagonal zero, and the sum of the squares of all the others smaller.
 * @param {Matrix} matrix @param {number} n
 * @returns {{d: Vector, Q: Vector[]}}
 */
export function eigh(matrix, n) {
  const A = Float64Array.from(matrix);
  const V = new Float64Array(n * n);
  for (let i = 0; i < n; i++) V[i * n + i] = 1;
  for (let sweep = 0; sweep < 30; sweep++) {
    let beside = 0;
    let all = 0;
    for (let i = 0; i < n; i++) {
      all += A[i * n + i] ** 2;
      for (let j = 0; j < i; j++) beside += A[i * n + j] ** 2;
    }
    if (!(beside > 1e-34 * all)) break;
    for (let i = 1; i < n; i++) for (let j = 0; j < i; j++) rotate(A, V, n, i, j);
  }
  const order = [...Array(n).keys()].sort((i, j) => A[i * n + i] - A[j * n + j]);
  return {
    d: Float64Array.from(order, (k) => A[k * n + k]),
    Q: order.map((k) => V.slice(k * n, k * n + n)),
  };
}

/**
 * One rotation, in the plane of i and j < i, that makes A[i, j] zero. The rows of V turn with it.
 * @param {Matrix} A @param {Matrix} V @param {number} n @param {number} i @param {number} j
 */
function rotate(A, V, n, i, j) {
  const a = A[i * n + j];
  if (a === 0) return;
  const half = (A[i * n + i] - A[j * n + j]) / (2 * a);
  const t = (half >= 0 ? 1 : -1) / (Math.abs(half) + Math.sqrt(half * half + 1));
  const c = 1 / Math.sqrt(t * t + 1);
  const s = t * c;
  A[i * n + i] += t * a;
  A[j * n + j] -= t * a;
  A[i * n + j] = A[j * n + i] = 0;
  for (let k = 0; k < n; k++) {
    if (k !== i && k !== j) {
      const x = A[i * n + k];
      const y = A[j * n + k];
      A[i * n + k] = A[k * n + i] = c * x + s * y;
      A[j * n + k] = A[k * n + j] = c * y - s * x;
    }
    const x = V[i * n + k];
    const y = V[j * n + k];
    V[i * n + k] = c * x + s * y;
    V[j * n + k] = c * y - s * x;
  }
}
