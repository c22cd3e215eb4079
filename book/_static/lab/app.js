// One laboratory: a scene, the minimum that belongs to it, and everything that follows from the two.
//
// Each change of the scene trains again, at once, from where the minimum was. What takes many trainings is asked of the
// worker, and drawn when it comes.

import { add, dot, eigh, norm } from "./linalg.js";
import { gradient } from "./mlp.js";
import { minimise } from "./newton.js";
import { initial } from "./random.js";
import { actualChange, influence, predictedChange } from "./influence.js";
import { MOST, encode, riskOf } from "./scene.js";
import { GOALS } from "./goals.js";
import { report } from "./words.js";

/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {import("./newton.js").Found} Found */
/** @typedef {import("./jobs.js").End} End */
/** @typedef {{predicted: Float64Array, actual: Float64Array}} Pairs */
/** @typedef {ReturnType<typeof import("./jobs.js").follow>} Way */
/** @typedef {{draw: (state: State) => void, follows?: boolean}} View `follows`: at each step of a drag */
/**
 * @typedef {{scene: Scene, found: Found, chosen: number, influences: Float64Array | null, pairs: Pairs[] | null,
 *   way: Way | null, near: Way | null, lifted: ReturnType<typeof import("./jobs.js").section> | null,
 *   branches: NonNullable<ReturnType<typeof import("./jobs.js").branch>>[], scratch: {value: number, verdict: string} | null, stale: boolean, busy: boolean,
 *   jumped: boolean, hovered: number | null, named: number[], without: (id: number) => Float64Array | null,
 *   eigen: () => {d: Float64Array, Q: Float64Array[]}, heard: () => boolean[], risk: import("./mlp.js").Risk}} State
 */

const FAR = [
  0, 0.25, 0.5, 0.75, 0.85, 0.9, 0.92, 0.94, 0.96, 0.98, 1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3,
];
const NEAR = [1e-3, 3e-3, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1];
const MOMENT = 250; // ms in which nothing happens
const TURNS = 3; // frames of a drag in which every view is drawn once
let count = 0;

export class App {
  /**
   * @param {Scene} scene @param {import("./workshop.js").Workshop} workshop
   * @param {{views?: string[], goal?: string, rest?: (app: App) => void}} [options]
   */
  constructor(scene, workshop, { views = [], goal = "", rest = () => {} } = {}) {
    this.id = ++count;
    this.workshop = workshop;
    this.wants = new Set(views);
    this.goal = goal;
    this.rest = rest;
    /** @type {View[]} */
    this.views = [];
    /** @type {{scene: Scene, theta: Float64Array}[]} */
    this.past = [];
    /** @type {{scene: Scene, theta: Float64Array, found: Found, risk: any, afresh?: boolean} | null} */
    this.session = null;
    this.praise = "";
    this.settled = false; // everything that was asked for is there
    this.frame = 0;
    this.changed = false; // since the views were drawn last
    this.turn = 0; // of which part of them it is
    this.owed = 0; // how many parts still show what was before
    this.timer = 0;
    this.version = 0;
    /** @type {{version: number, ends: End[]} | null} */
    this.retrained = null;
    this.first = scene;
    /** @type {State} */
    this.state = /** @type {any} */ ({
      scene,
      hovered: null,
      named: [],
      pairs: null,
      way: null,
      near: null,
      lifted: null,
      branches: [],
      scratch: null,
      jumped: false,
      stale: true,
      without: (/** @type {number} */ id) => this.without(id),
    });
    this.train(scene.at ?? initial(scene.hidden, scene.seed));
  }

  // ------------------------------------------------------------------------------------------------ what follows

  /** The minimum of the scene, from `start`; and with it, everything that is known at once. @param {Float64Array} start */
  train(start) {
    const { state } = this;
    state.risk = riskOf(state.scene);
    state.found = minimise(state.risk, start, 120);
    state.stale = true;
    this.settled = false;
    state.scratch = null;
    this.version++;
    /** @type {ReturnType<State["eigen"]> | null} */
    let eigen = null;
    state.eigen = () => (eigen ??= eigh(state.found.hessian, state.found.theta.length));
    state.heard = () => {
      const G = state.risk.data.map((z) => gradient(state.found.theta, z));
      return state.eigen().Q.map((q) => G.some((g) => Math.abs(dot(q, g)) > 1e-6));
    };
    this.assess();
  }

  /** Influences and pairs for the test points that are asked about. */
  assess() {
    const { state } = this;
    const { scene, found, risk } = state;
    state.chosen = scene.points.findIndex((z) => z.id === scene.point);
    const good = found.verdict === "minimum";
    state.influences = good ? influence(risk, found, scene.tests[scene.test], scene.damping) : null;
    const ends = this.retrained?.version === this.version ? this.retrained.ends : null;
    if (!good) state.pairs = null;
    else if (ends) {
      const asked = scene.all ? scene.tests : [scene.tests[scene.test]];
      state.pairs = asked.map((test) => {
        const I = influence(risk, found, test, scene.damping) ?? new Float64Array(0);
        return {
          predicted: predictedChange(I, risk.weights, scene.predict),
          actual: Float64Array.from(ends, (end) => actualChange(found, /** @type {any} */ (end), test)),
        };
      });
    }
    const order = [...(state.influences ?? [])]
      .map((I, k) => ({ I, id: scene.points[k].id }))
      .sort((a, b) => a.I - b.I);
    state.named = [
      ...new Set([scene.point, ...order.slice(0, 2).map((o) => o.id), ...order.slice(-2).map((o) => o.id)]),
    ];
  }

  /** The minimum without a point, if it is known. @param {number} id */
  without(id) {
    const k = this.state.scene.points.findIndex((z) => z.id === id);
    const end = this.retrained?.version === this.version ? this.retrained.ends[k] : undefined;
    return end?.verdict === "minimum" ? end.theta : null;
  }

  /** @param {string} name @param {any[]} args @param {(result: any) => void} then @param {string} [of] what needs it */
  job(name, args, then, of = name) {
    this.workshop.ask(`${this.id} ${of}`, name, args, then);
  }

  /** Ask the worker for what the views need. */
  ask() {
    const { state, version } = this;
    const { scene, found, risk, chosen } = state;
    if (found.verdict !== "minimum") {
      state.stale = false;
      return;
    }
    const current = (/** @type {(result: any) => void} */ then) => (/** @type {any} */ result) => {
      if (version !== this.version) return;
      then(result);
      this.show();
    };
    const known = this.retrained?.version === version;
    if (!known) {
      this.job(
        "retrainings",
        [risk, found.theta, scene.retrain, scene.leash ? scene.damping : 0],
        current((ends) => {
          this.retrained = { version, ends };
          state.stale = false;
          this.assess();
        }),
      );
    }
    const problem = {
      data: risk.data,
      l2: risk.l2,
      ms: scene.points.map((z) => z.m),
      i: chosen,
      convention: scene.retrain,
    };
    const m = scene.points[chosen].m;
    const point = scene.point;
    const still = (/** @type {(result: any) => void} */ then) =>
      current((result) => point === state.scene.point && then(result));
    const follow = (
      /** @type {number[]} */ to,
      /** @type {(way: Way) => void} */ then,
      /** @type {string} */ of,
    ) => {
      const [down, up] = [to.filter((x) => x < m - 1e-9).reverse(), to.filter((x) => x > m + 1e-9)];
      const ask = (/** @type {number[]} */ side, /** @type {(way: Way) => void} */ then) =>
        this.job("follow", [problem, found.theta, m, side], still(then), of);
      ask(down, (below) => ask(up, (above) => then([...below, ...above])));
    };
    if (this.wants.has("weight")) {
      follow(
        FAR,
        (way) => {
          state.way = way;
          state.branches = [];
          for (const [side, to] of [
            [-1, 0],
            [1, 3],
          ]) {
            if (!way.some((stop) => stop.broken && Math.sign(stop.m - m) === side)) continue;
            const keep = still((line) => line && state.branches.push(line));
            this.job("branch", [problem, found.theta, to], keep, `branch to ${to}`);
          }
        },
        "weight",
      );
    }
    if (this.wants.has("local")) {
      const near = NEAR.flatMap((part) => [m - part, m + part]).filter((to) => to >= 0);
      follow(
        near.sort((a, b) => a - b),
        (way) => (state.near = way),
        "local",
      );
    }
    if (this.wants.has("lift")) {
      this.job(
        "section",
        [problem, found.theta, 1, m === 1 ? 0 : m],
        still((result) => (state.lifted = result)),
      );
    }
  }

  /** Train again, ask, and draw; at most once a frame. @param {Float64Array} [start] */
  refresh(start = this.state.found.theta) {
    const { scene } = this.state;
    const usable = start.every(Number.isFinite) ? start : initial(scene.hidden, scene.seed);
    this.train(usable);
    this.forget();
    this.ask();
    this.draw();
  }

  /** What was computed for another scene or another point. */
  forget() {
    Object.assign(this.state, { way: null, near: null, lifted: null, branches: [] });
  }

  /**
   * Drawing takes longer than training: during a drag the plane follows each frame, the other views take turns.
   * @param {boolean} changed whether there is anything new since the last turn
   */
  draw(changed = true) {
    const { busy } = this.state;
    this.owed = changed ? TURNS - 1 : this.owed - 1;
    this.turn = (this.turn + 1) % TURNS;
    this.views.forEach((view, k) => {
      if (!busy || view.follows || k % TURNS === this.turn) view.draw(this.state);
    });
    if (busy && this.owed > 0) this.show(false);
  }

  /** Draw in the next frame. @param {boolean} changed */
  show(changed = true) {
    this.settled = false;
    this.changed ||= changed;
    this.frame ||= requestAnimationFrame(() => {
      const { changed } = this;
      this.frame = 0;
      this.changed = false;
      if (this.dirty) {
        this.dirty = false;
        this.refresh();
      } else this.draw(changed);
      this.settle();
    });
  }

  /** When nothing has happened for a moment: say what is there, and see where training from scratch would end. */
  settle() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const { state, version } = this;
      if (this.session || !this.workshop.idle) return this.settle();
      if (!state.scratch && state.found.verdict === "minimum") {
        const start = initial(state.scene.hidden, state.scene.seed);
        this.job("train", [state.risk, start], (end) => {
          if (version !== this.version) return;
          state.scratch = end;
          this.rested();
        });
      } else this.rested();
    }, MOMENT);
  }

  rested() {
    const done = GOALS[this.goal]?.(this.state);
    if (done) this.praise = done;
    this.draw();
    this.settled = true;
    this.rest(this);
  }

  /** The scene, with where training must start to end here. */
  get address() {
    const { scene, scratch, found } = this.state;
    const same = !scratch || found.verdict !== "minimum" || Math.abs(scratch.value - found.value) < 1e-9;
    return encode({ ...scene, at: same ? null : found.theta });
  }

  get words() {
    return [report(this.state), this.praise].filter(Boolean).join(" ");
  }

  // --------------------------------------------------------------------------------------------- what readers do

  /** A change that goes on for a while, such as a drag, is one step for undo. */
  begin() {
    if (this.session) return;
    const { scene, found, risk } = this.state;
    this.session = { scene, theta: found.theta, found, risk };
    this.state.busy = true;
  }

  end() {
    if (!this.session) return;
    if (this.dirty) {
      this.dirty = false;
      this.refresh();
    }
    const { scene, theta, found, risk, afresh } = this.session;
    this.session = null;
    this.state.busy = false;
    if (scene === this.state.scene) return;
    this.past.push({ scene, theta });
    if (this.past.length > 200) this.past.shift();
    // Does the way back lead back? If not, the old minimum was lost on the way. That is said until one starts afresh.
    const here = this.state.found;
    if (afresh) this.state.jumped = false;
    else if (!this.state.jumped && found.verdict === "minimum" && here.verdict === "minimum") {
      const back = minimise(risk, here.theta);
      this.state.jumped = norm(add(Float64Array.from(back.theta), -1, theta)) > 1e-3 * (1 + norm(theta));
    }
    this.show();
  }

  /** Change the scene. @param {Partial<Scene>} changes @param {Float64Array} [start] where to train from, if not here */
  change(changes, start) {
    const whole = !this.session;
    this.begin();
    this.state.scene = { ...this.state.scene, at: null, ...changes };
    if (start && this.session) this.session.afresh = true;
    if (start || whole) {
      this.refresh(start);
      if (whole) this.end();
    } else {
      this.dirty = true;
      this.show();
    }
  }

  /** @param {number} id @param {(z: import("./scene.js").Point) => Partial<import("./scene.js").Point>} how */
  changePoint(id, how) {
    this.change({ points: this.state.scene.points.map((z) => (z.id === id ? { ...z, ...how(z) } : z)) });
  }

  /** @param {"p" | "t"} kind @param {number} id @param {[number, number]} x */
  move(kind, id, x) {
    if (kind === "p") this.changePoint(id, () => ({ x }));
    else this.ofTests({ tests: this.state.scene.tests.map((z, t) => (t === id ? { ...z, x } : z)) });
  }

  /** A change of what is asked, not of what is trained. @param {Partial<Scene>} changes */
  ofTests(changes) {
    const whole = !this.session;
    this.begin();
    this.state.scene = { ...this.state.scene, ...changes };
    this.assess();
    if (whole) this.end();
    this.show();
  }

  /** @param {"p" | "t"} kind @param {number} id @param {number} dx @param {number} dy */
  nudge(kind, id, dx, dy) {
    const { points, tests } = this.state.scene;
    const z = kind === "p" ? points.find((z) => z.id === id) : tests[id];
    if (z) this.move(kind, id, [round(z.x[0] + dx), round(z.x[1] + dy)]);
  }

  /** @param {"p" | "t"} kind @param {number} id */
  flip(kind, id) {
    if (kind === "p") this.changePoint(id, (z) => ({ y: 1 - z.y }));
    else this.ofTests({ tests: this.state.scene.tests.map((z, t) => (t === id ? { ...z, y: 1 - z.y } : z)) });
  }

  /** @param {number} id @param {number} by */
  weigh(id, by) {
    this.changePoint(id, (z) => ({ m: round(Math.max(0, Math.min(3, z.m + by))) }));
  }

  /** @param {[number, number]} x @param {number} [y] */
  addPoint(x, y = x[0] ** 2 + x[1] ** 2 > 1.5 ? 1 : 0) {
    const { points } = this.state.scene;
    if (points.length >= MOST.points) return;
    const id = Math.max(59, ...points.map((z) => z.id)) + 1;
    this.change({ points: [...points, { id, x, y, m: 1 }], point: id });
  }

  /** @param {number} id */
  removePoint(id) {
    const { points, point } = this.state.scene;
    if (points.length <= 3) return;
    const k = points.findIndex((z) => z.id === id);
    const left = points.filter((z) => z.id !== id);
    this.change({ points: left, point: point === id ? left[Math.min(k, left.length - 1)].id : point });
  }

  /** @param {"p" | "t"} kind @param {number} id */
  choose(kind, id) {
    const { scene } = this.state;
    if (scene[kind === "p" ? "point" : "test"] === id) return;
    this.state.scene = { ...scene, [kind === "p" ? "point" : "test"]: id };
    this.forget();
    this.assess();
    this.ask();
    this.show();
  }

  /** The next or the previous one. @param {"p" | "t"} kind @param {number} by */
  next(kind, by) {
    const { points, point, tests, test } = this.state.scene;
    if (kind === "t") return this.choose("t", (test + by + tests.length) % tests.length);
    const k = points.findIndex((z) => z.id === point);
    this.choose("p", points[(k + by + points.length) % points.length].id);
  }

  /** @param {number | null} id */
  hover(id) {
    if (this.state.hovered === id) return;
    this.state.hovered = id;
    this.show();
  }

  /** The initialisation of a network. */
  start(hidden = this.state.scene.hidden, seed = this.state.scene.seed) {
    return initial(hidden, seed);
  }

  /** Damping changes the predictions, and the retrainings where they are on its leash; the minimum stays. @param {Partial<Scene>} changes */
  damp(changes) {
    if (changes.leash !== undefined || this.state.scene.leash) this.change(changes);
    else this.ofTests(changes);
  }

  /** All over again, from the initialisation of the seed. */
  restart() {
    this.change({}, this.start());
  }

  undo() {
    const last = this.past.pop();
    if (!last) return;
    this.state.scene = last.scene;
    this.state.jumped = false;
    this.refresh(last.theta);
    this.show();
  }

  /** @param {Scene} [scene] */
  reset(scene = this.first) {
    this.praise = "";
    this.change({ ...scene }, scene.at ?? initial(scene.hidden, scene.seed));
  }
}

/** @param {number} v */
const round = (v) => Math.round(v * 1000) / 1000;
