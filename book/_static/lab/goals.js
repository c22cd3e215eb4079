// What a reader may be asked to make happen, and whether it has.

import { bySpring } from "./springs.js";
import { agreement } from "./influence.js";
import { loss } from "./mlp.js";
import { said } from "./svg.js";
import { tangent } from "./weight.js";

/** @typedef {import("./app.js").State} State */

/** @param {State} state */
const row = ({ pairs, scene }) => pairs?.[scene.all ? scene.test : 0];

/** @type {Record<string, (state: State) => string | null>} Praise, or null. */
export const GOALS = {
  helpful({ scene, influences, chosen, found }) {
    const m = scene.points[chosen].m;
    if (found.verdict !== "minimum" || !influences || !(influences[chosen] < 0) || Math.abs(m - 1) < 0.5)
      return null;
    return `Done: the heavier point ${scene.point} is, the smaller the test loss. It is helpful.`;
  },
  misjudged(state) {
    const pairs = row(state);
    if (!pairs || state.stale) return null;
    const [said_, was] = [pairs.predicted[state.chosen], pairs.actual[state.chosen]];
    if (
      !(Math.abs(was - said_) >= 0.5 * Math.abs(said_)) ||
      !(Math.max(Math.abs(was), Math.abs(said_)) >= 0.02)
    )
      return null;
    return `Found: the tangent is wrong by ${said((100 * Math.abs(was - said_)) / Math.abs(said_), 2)} % of what it says.`;
  },
  zero({ lifted, scene }) {
    if (!lifted) return null;
    const off = Math.abs(lifted.length - lifted.predicted) / Math.abs(lifted.predicted);
    return off > 0.4
      ? `Found: with point ${scene.point}, the zero ends ${said(100 * off, 2)} % away from the cross.`
      : null;
  },
  springs(state) {
    if (state.found.verdict !== "minimum") return null;
    const { share } = bySpring(state);
    const most = share.reduce((best, v, k) => (Math.abs(v) > Math.abs(share[best]) ? k : best), 0);
    return most < 10
      ? `Found: most of the influence of point ${state.scene.point} comes from direction ${most + 1}, a soft one.`
      : null;
  },
  offset({ pairs, scene }) {
    if (!pairs || scene.predict === scene.retrain) return null;
    const found = agreement(
      pairs.flatMap((p) => [...p.predicted]),
      pairs.flatMap((p) => [...p.actual]),
    );
    return found && Math.abs(found.intercept) > 0.002
      ? `Done: every point is off the line by about ${said(Math.abs(found.intercept), 2)}, and r is still ${found.r.toFixed(3)}.`
      : null;
  },
  steep({ pairs, scene }) {
    if (!pairs || scene.all) return null;
    const found = agreement(pairs[0].predicted, pairs[0].actual);
    return found && found.slope > 1.3
      ? `Found: at test point ${scene.test} everything comes out ${found.slope.toFixed(2)} times as large as predicted.`
      : null;
  },
  fold: ({ jumped, scene }) =>
    jumped
      ? `Done: you went over the fold with point ${scene.point}. Undo brings the old minimum back.`
      : null,
  leash({ pairs, scene, stale }) {
    if (!pairs || stale || !scene.leash || scene.damping < 0.01) return null;
    const found = agreement(
      pairs.flatMap((p) => [...p.predicted]),
      pairs.flatMap((p) => [...p.actual]),
    );
    return found
      ? `Done: on the leash, slope ${found.slope.toFixed(2)} and r = ${found.r.toFixed(3)}. The damped influence answers that question.`
      : null;
  },
  remainder(state) {
    const { near, scene, found, chosen } = state;
    const gone = near?.find((stop) => stop.m === 0);
    if (!gone || found.verdict !== "minimum") return null;
    if (gone.broken || gone.verdict !== "minimum")
      return `Found: on the way, the minimum of point ${scene.point} is lost.`;
    const test = scene.tests[scene.test];
    const change = loss(gone.theta, test) - loss(found.theta, test);
    const promised = -tangent(state) * scene.points[chosen].m;
    const off = Math.abs(change - promised) / Math.abs(promised);
    return off > 1 / 3
      ? `Found: the tangent misses ${said(100 * off, 2)} % of what it says about point ${scene.point}.`
      : null;
  },
};
