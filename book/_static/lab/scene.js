// A scene: what the reader has arranged. It has a short text, which stands in the address, and which undo remembers.

import { TEST, TRAIN } from "./ring.js";
import { size } from "./mlp.js";

/** @typedef {import("./influence.js").Convention} Convention */
/** @typedef {{id: number, x: [number, number], y: number, m: number}} Point `m` times its ordinary weight */
/** @typedef {{x: [number, number], y: number}} Test */
/**
 * @typedef {{points: Point[], tests: Test[], point: number, test: number, all: boolean, hidden: number, seed: number,
 *   l2: number, damping: number, leash: boolean, predict: Convention, retrain: Convention,
 *   at: Float64Array | null}} Scene
 * `point` is the id of the chosen training point, `test` the number of the chosen test point, `all` whether all test
 * points are asked about; `at` is where training starts, if not at the initialisation of the seed.
 */

export const MOST = { points: 120, hidden: 12, seed: 9999 };

/** @param {number[]} row @returns {Test} */
const example = ([x1, x2, y]) => ({ x: [Math.fround(x1), Math.fround(x2)], y });

/** The book's problem. @returns {Scene} */
export function ring() {
  return {
    points: TRAIN.map((row, id) => ({ id, ...example(row), m: 1 })),
    tests: TEST.map(example),
    point: 31,
    test: 0,
    all: false,
    hidden: 8,
    seed: 42,
    l2: 0.02,
    damping: 0,
    leash: false,
    predict: "mean",
    retrain: "mean",
    at: null,
  };
}

/** @param {Scene} scene @param {Convention} convention the weights wᵢ: mᵢ/n, or mᵢ over the sum of all m */
export function weights(scene, convention) {
  const m = Float64Array.from(scene.points, (z) => z.m);
  const total = convention === "mean" ? m.reduce((a, b) => a + b, 0) : m.length;
  return m.map((value) => value / total);
}

/** @param {Scene} scene @returns {import("./mlp.js").Risk} */
export const riskOf = (scene) => ({
  data: scene.points,
  weights: weights(scene, scene.retrain),
  l2: scene.l2,
});

/** @param {number[]} values */
const list = (values) => values.map((v) => +Number(v).toPrecision(9)).join(",");

/**
 * The scene in words that fit into an address: what differs from the book's problem.
 * @param {Scene} scene
 */
export function encode(scene) {
  const plain = ring();
  const said = new URLSearchParams();
  for (const key of /** @type {const} */ ([
    "l2",
    "damping",
    "hidden",
    "seed",
    "point",
    "test",
    "predict",
    "retrain",
  ])) {
    if (scene[key] !== plain[key]) said.set(key, String(scene[key]));
  }
  for (const key of /** @type {const} */ (["all", "leash"])) if (scene[key]) said.set(key, "1");
  const there = new Set(scene.points.map((z) => z.id));
  const out = plain.points.filter((z) => !there.has(z.id)).map((z) => z.id);
  if (out.length) said.set("out", out.join(","));
  for (const z of scene.points) {
    const text = list([...z.x, z.y, z.m]);
    const was = plain.points[z.id];
    if (!was || text !== list([...was.x, was.y, was.m])) said.set(`p${z.id}`, text);
  }
  scene.tests.forEach((z, t) => {
    const text = list([...z.x, z.y]);
    const was = plain.tests[t];
    if (!was || text !== list([...was.x, was.y])) said.set(`t${t}`, text);
  });
  if (scene.at) said.set("at", packed(scene.at));
  return said.toString().replaceAll("%2C", ",");
}

/**
 * The scene of a text, and whether all of the text was understood. What was not is as in the book's problem.
 * @param {string} text @returns {{scene: Scene, understood: boolean}}
 */
export function decode(text) {
  const scene = ring();
  let understood = true;
  /** @type {Record<string, (value: string) => boolean>} */
  const readers = {
    l2: (v) => take("l2", v, 0, 100),
    damping: (v) => take("damping", v, 0, 100),
    hidden: (v) => take("hidden", v, 0, MOST.hidden, true),
    seed: (v) => take("seed", v, 0, MOST.seed, true),
    point: (v) => take("point", v, 0, 999, true),
    test: (v) => take("test", v, 0, 99, true),
    all: (v) => (scene.all = v === "1"),
    leash: (v) => (scene.leash = v === "1"),
    predict: (v) => convention("predict", v),
    retrain: (v) => convention("retrain", v),
    out: (v) => {
      const gone = new Set(v.split(",").map(Number));
      scene.points = scene.points.filter((z) => !gone.has(z.id));
      return true;
    },
    at: (v) => (scene.at = unpacked(v)) !== null,
  };
  /** @param {"l2" | "damping" | "hidden" | "seed" | "point" | "test"} key @param {string} v @param {number} low */
  function take(key, v, low, /** @type {number} */ high, whole = false) {
    const number = Number(v);
    const good = v !== "" && number >= low && number <= high && (!whole || Number.isInteger(number));
    if (good) scene[key] = number;
    return good;
  }
  /** @param {"predict" | "retrain"} key @param {string} v */
  function convention(key, v) {
    if (v !== "mean" && v !== "zero") return false;
    scene[key] = v;
    return true;
  }
  for (const [key, value] of new URLSearchParams(text)) {
    const place = /^([pt])(\d{1,3})$/.exec(key);
    const good = place
      ? put(scene, place[1], Number(place[2]), value.split(",").map(Number))
      : Object.hasOwn(readers, key) && readers[key](value);
    understood &&= Boolean(good);
  }
  if (scene.at && scene.at.length !== size(scene.hidden)) [scene.at, understood] = [null, false];
  if (!scene.points.some((z) => z.id === scene.point)) scene.point = scene.points[0].id;
  if (scene.test >= scene.tests.length) [scene.test, understood] = [0, false];
  return { scene, understood };
}

/** @param {Scene} scene @param {string} kind @param {number} place @param {number[]} v */
function put(scene, kind, place, v) {
  const good = v.length === (kind === "p" ? 4 : 3) && v.every(Number.isFinite) && (v[2] === 0 || v[2] === 1);
  if (!good) return false;
  // The text has nine digits, which name a number of single precision, as the book's are.
  const was = (kind === "p" ? TRAIN : TEST)[place] ?? [];
  const exact = (/** @type {number} */ k) =>
    list([Math.fround(was[k])]) === list([v[k]]) ? Math.fround(was[k]) : v[k];
  const z = { x: /** @type {[number, number]} */ ([exact(0), exact(1)]), y: v[2] };
  if (kind === "t") {
    if (place > scene.tests.length) return false;
    scene.tests[place] = z;
    return true;
  }
  const k = scene.points.findIndex((other) => other.id === place);
  if ((k < 0 && scene.points.length >= MOST.points) || !(v[3] >= 0 && v[3] <= 10)) return false;
  const point = { id: place, ...z, m: v[3] };
  if (k < 0) scene.points.push(point);
  else scene.points[k] = point;
  return true;
}

/** Parameters as letters; single precision is enough for a start. @param {Float64Array} theta */
function packed(theta) {
  const bytes = new Uint8Array(Float32Array.from(theta).buffer);
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
}

/** @param {string} text */
function unpacked(text) {
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) =>
      c.charCodeAt(0),
    );
    const theta = Float64Array.from(new Float32Array(bytes.buffer));
    return theta.every(Number.isFinite) ? theta : null;
  } catch {
    return null;
  }
}
