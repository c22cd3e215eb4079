// The initial parameters that PyTorch draws for this network from a seed, to the last bit.

/**
 * The Mersenne Twister (Matsumoto and Nishimura 1998): 624 words of state, and a function that gives 32 bits a call.
 * @param {number} seed
 */
export function twister(seed) {
  const N = 624;
  const M = 397;
  const state = new Uint32Array(N);
  state[0] = seed;
  for (let i = 1; i < N; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  let next = N;
  return () => {
    if (next === N) {
      for (let i = 0; i < N; i++) {
        const y = (state[i] & 0x80000000) | (state[(i + 1) % N] & 0x7fffffff);
        state[i] = state[(i + M) % N] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      next = 0;
    }
    let y = state[next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/**
 * θ for `hidden` units (0: a logistic regression), drawn as `torch.nn.Linear` draws: uniform up to one over the square
 * root of the number of inputs, weights before biases, in single precision but for the last sum.
 * @param {number} hidden @param {number} seed
 */
export function initial(hidden, seed) {
  const bits = twister(seed);
  /** @param {number} inputs */
  const uniform = (inputs) => {
    const bound = Math.fround(1 / Math.sqrt(inputs));
    return Math.fround((bits() & 0xffffff) * 2 ** -24 * (2 * bound) - bound);
  };
  const counts = hidden
    ? [
        [2, 3 * hidden],
        [hidden, hidden + 1],
      ]
    : [[2, 3]];
  return Float64Array.from(
    counts.flatMap(([inputs, count]) => Array.from({ length: count }, () => uniform(inputs))),
  );
}
