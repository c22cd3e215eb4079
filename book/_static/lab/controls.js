// What can be turned, switched and pressed. Each is an ordinary control of the page, so it works with the keyboard.

import { MOST, decode, encode } from "./scene.js";
import { element, said } from "./svg.js";

/** @typedef {import("./app.js").App} App @typedef {import("./app.js").State} State */
/** @typedef {{element: HTMLElement, draw: (state: State) => void}} Control */

/** 0, and ten values a decade. @param {number} low @param {number} high exponents of ten */
const decades = (low, high) => {
  const values = [0];
  for (let e = low; e < high; e++)
    for (const k of [1, 1.25, 1.6, 2, 2.5, 3.2, 4, 5, 6.3, 8]) values.push(+`${k}e${e}`);
  return values;
};

let count = 0;

/** @param {string} text @param {HTMLElement} input @param {HTMLElement[]} beside */
function labelled(text, input, ...beside) {
  input.id = `laboratory-control-${++count}`;
  return element("div", { class: "control" }, element("label", { for: input.id }, text), input, ...beside);
}

/** @param {App} app @param {HTMLInputElement} input @param {() => void} act */
function slides(app, input, act) {
  input.addEventListener("input", () => {
    app.begin();
    act();
  });
  input.addEventListener("change", () => app.end());
}

/**
 * A slider.
 * @param {App} app @param {string} text @param {number[]} values
 * @param {(state: State) => number} get @param {(value: number, state: State) => void} set @param {(v: number) => string} [unit]
 */
function slider(app, text, values, get, set, unit = said) {
  const input = element("input", { type: "range", min: 0, max: values.length - 1, step: 1 });
  const shown = element("output", {});
  slides(app, input, () => set(values[Number(input.value)], app.state));
  return {
    element: labelled(text, input, shown),
    draw(/** @type {State} */ state) {
      const v = get(state);
      const nearest = values.reduce(
        (best, x, k) => (Math.abs(x - v) < Math.abs(values[best] - v) ? k : best),
        0,
      );
      if (Number(input.value) !== nearest) input.value = String(nearest);
      shown.textContent = unit(v);
      input.setAttribute("aria-valuetext", unit(v));
    },
  };
}

/** @param {App} app @param {string} text @param {(state: State) => number} get @param {(v: number) => void} set @param {Record<string, number>} limits */
function number(app, text, get, set, limits) {
  const input = element("input", { type: "number", ...limits });
  input.addEventListener("change", () => {
    const v = +Number(input.value).toPrecision(9); // as many digits as an address holds
    const good = input.value !== "" && v >= limits.min && v <= limits.max;
    if (good && (limits.step < 1 || Number.isInteger(v))) set(v);
    show();
  });
  const show = () => (input.value = String(+get(app.state).toPrecision(6)));
  return { element: labelled(text, input), draw: () => document.activeElement === input || show() };
}

/** @param {App} app @param {string} text @param {() => void} act @param {string} [why] @param {(state: State) => boolean} [possible] */
function button(app, text, act, why = "", possible = () => true) {
  const made = element("button", { type: "button", title: why }, text);
  made.addEventListener("click", act);
  return { element: made, draw: (/** @type {State} */ state) => (made.disabled = !possible(state)) };
}

/** @param {App} app @param {string} text @param {"all" | "leash"} key @param {(on: boolean) => void} set */
function tick(app, text, key, set) {
  const input = element("input", { type: "checkbox" });
  input.addEventListener("change", () => set(input.checked));
  return {
    element: element("label", { class: "control check" }, input, ` ${text}`),
    draw: (/** @type {State} */ { scene }) => (input.checked = scene[key]),
  };
}

/** @param {App} app @param {string} text @param {(state: State) => [string, string][]} options @param {(state: State) => string} get @param {(v: string) => void} set */
function choice(app, text, options, get, set) {
  const select = element("select", {});
  let shown = "";
  select.addEventListener("change", () => set(select.value));
  return {
    element: labelled(text, select),
    draw(/** @type {State} */ state) {
      const now = options(state);
      if (now.join() !== shown) {
        shown = now.join();
        select.replaceChildren(...now.map(([value, words]) => element("option", { value }, words)));
      }
      select.value = get(state);
    },
  };
}

const REMOVALS = /** @type {[string, string][]} */ ([
  ["mean", "mean over the others"],
  ["zero", "weight zero"],
]);
const SCENES = /** @type {[string, string][]} */ ([
  ["", "the book’s problem"],
  ["l2=0.1", "too much regularisation"],
  ["l2=0.001&point=56", "too little of it"],
  ["l2=0.01&seed=6", "on the brink"],
  ["hidden=0", "no hidden units"],
]);
const MS = Array.from({ length: 301 }, (_, k) => k / 100);

/** @type {Record<string, (app: App) => Control[]>} The groups of controls, by name. */
export const CONTROLS = {
  point: (app) => [
    choice(
      app,
      "Training point",
      ({ scene }) => scene.points.map((z) => [String(z.id), `${z.id}, label ${z.y}`]),
      ({ scene }) => String(scene.point),
      (v) => app.choose("p", Number(v)),
    ),
  ],
  weight: (app) => [
    slider(
      app,
      "its weight",
      MS,
      ({ scene, chosen }) => scene.points[chosen].m,
      (m, { scene }) => app.changePoint(scene.point, () => ({ m })),
      (m) => `${said(m)}/n`,
    ),
  ],
  edit: (app) => [
    ...[0, 1].map((axis) =>
      number(
        app,
        axis ? "x₂" : "x₁",
        ({ scene, chosen }) => scene.points[chosen].x[axis],
        (v) => app.changePoint(app.state.scene.point, (z) => ({ x: axis ? [z.x[0], v] : [v, z.x[1]] })),
        { min: -10000, max: 10000, step: 0.05 },
      ),
    ),
    button(app, "Flip its label", () => app.flip("p", app.state.scene.point), "F"),
    button(
      app,
      "Remove it",
      () => app.removePoint(app.state.scene.point),
      "Delete",
      ({ scene }) => scene.points.length > 3,
    ),
    button(
      app,
      "Add a point",
      () => {
        const { scene, chosen } = app.state;
        const z = scene.points[chosen];
        app.addPoint([Math.min(3.5, z.x[0] + 0.3), z.x[1]], z.y);
      },
      "or double-click the plane",
      ({ scene }) => scene.points.length < MOST.points,
    ),
  ],
  test: (app) => [
    choice(
      app,
      "Test point",
      ({ scene }) => scene.tests.map((z, t) => [String(t), `${t}, label ${z.y}`]),
      ({ scene }) => String(scene.test),
      (v) => app.choose("t", Number(v)),
    ),
  ],
  flipTest: (app) => [button(app, "Flip the test label", () => app.flip("t", app.state.scene.test))],
  all: (app) => [tick(app, "all test points", "all", (all) => app.ofTests({ all }))],
  l2: (app) => [
    slider(
      app,
      "λ",
      decades(-5, 0).filter((v) => v <= 0.2),
      ({ scene }) => scene.l2,
      (l2) => app.change({ l2 }),
    ),
  ],
  network: (app) => [
    number(
      app,
      "hidden units",
      ({ scene }) => scene.hidden,
      (hidden) => app.change({ hidden }, app.start(hidden)),
      { min: 0, max: MOST.hidden, step: 1 },
    ),
    number(
      app,
      "seed",
      ({ scene }) => scene.seed,
      (seed) => app.change({ seed }, app.start(undefined, seed)),
      { min: 0, max: MOST.seed, step: 1 },
    ),
    button(app, "Train from scratch", () => app.restart()),
  ],
  damping: (app) => [
    slider(
      app,
      "damping δ",
      decades(-5, 0),
      ({ scene }) => scene.damping,
      (damping) => app.damp({ damping }),
    ),
    tick(app, "retrain on the leash", "leash", (leash) => app.damp({ leash })),
  ],
  predict: (app) => [
    choice(
      app,
      "Predict for",
      () => REMOVALS,
      ({ scene }) => scene.predict,
      (v) => app.ofTests({ predict: /** @type {any} */ (v) }),
    ),
  ],
  retrain: (app) => [
    choice(
      app,
      "Retrain with",
      () => REMOVALS,
      ({ scene }) => scene.retrain,
      (v) => app.change({ retrain: /** @type {any} */ (v) }),
    ),
  ],
  removal: (app) => [
    choice(
      app,
      "Leaving out is",
      () => REMOVALS,
      ({ scene }) => scene.retrain,
      (v) => app.change({ retrain: /** @type {any} */ (v), predict: /** @type {any} */ (v) }),
    ),
  ],
  scenes: (app) => [
    choice(
      app,
      "Scene",
      () => [["?", "your own"], ...SCENES],
      ({ scene }) => {
        const text = encode({ ...scene, at: null });
        return SCENES.some(([known]) => known === text) ? text : "?";
      },
      (text) => text !== "?" && app.reset(decode(text).scene),
    ),
  ],
  history: (app) => [
    button(
      app,
      "Undo",
      () => app.undo(),
      "Ctrl+Z",
      () => app.past.length > 0,
    ),
    button(app, "Reset", () => app.reset()),
  ],
};
