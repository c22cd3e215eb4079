// What is there, in words: for the line below the drawings, and for a screen reader.

import { norm } from "./linalg.js";
import { output } from "./mlp.js";
import { said, signed } from "./svg.js";

/** @typedef {import("./app.js").State} State */

/** Whether there is a minimum, and how one knows. @param {State} state */
export function certificate({ found, scene, risk, eigen, scratch }) {
  const size = `‖∇R‖ = ${said(found.norm, 2)}`;
  if (found.verdict === "overflow")
    return "No minimum: the loss overflows. Move the point that is far away, or choose another seed.";
  const smallest = said(eigen().d[0], 2);
  if (found.verdict === "moving") {
    return (
      `No minimum: after ${found.steps} steps the gradient has not vanished, ${size}, and ‖θ‖ = ${said(norm(found.theta))}. ` +
      (scene.l2 < 1e-4
        ? "With so little regularisation the loss may fall for ever: raise λ."
        : "Train from scratch, or choose another seed.")
    );
  }
  if (found.verdict === "saddle") {
    return (
      `No minimum: ${size}, but the smallest eigenvalue of H is ${smallest}. It is a saddle or a flat valley, and ` +
      "the formula does not hold here. Train from scratch, choose another seed, or raise λ."
    );
  }
  const right = risk.data.filter((z) => output(found.theta, z.x[0], z.x[1]) > 0 === (z.y === 1)).length;
  const other = !scratch
    ? ""
    : scratch.verdict !== "minimum"
      ? " From scratch, training finds no minimum."
      : Math.abs(scratch.value - found.value) < 1e-9
        ? " Training from scratch ends here, too."
        : ` Training from scratch ends in another one, with R = ${scratch.value.toFixed(4)}.`;
  return (
    `A certified minimum: ${size}, smallest eigenvalue of H ${smallest}, R = ${found.value.toFixed(4)}; ` +
    `${right} of ${risk.data.length} training points are right.${other}`
  );
}

/** @param {"zero" | "mean"} convention */
const named = (convention) => (convention === "zero" ? " (weight zero)" : " (mean over the others)");

/** What has happened, and what the chosen point does. @param {State} state */
export function report(state) {
  const { scene, found, influences, pairs, chosen, jumped, stale } = state;
  if (found.verdict !== "minimum" || !influences) return certificate(state);
  const I = influences[chosen];
  const row = pairs && !stale ? pairs[scene.all ? scene.test : 0] : null;
  const z = scene.points[chosen];
  const jump = jumped
    ? "On the way the minimum was lost, and training fell into another: going back does not bring the old one back. "
    : "";
  const both = scene.predict === scene.retrain ? named(scene.retrain) : "";
  const [foretold, done] = both ? ["", ""] : [named(scene.predict), named(scene.retrain)];
  const fate =
    !row || z.m === 0
      ? ""
      : Number.isFinite(row.actual[chosen])
        ? ` Left out${both}, it changes the test loss by ${signed(row.predicted[chosen])} as predicted${foretold}, by ${signed(row.actual[chosen])} in fact${done}.`
        : ` Predicted on leaving it out: ${signed(row.predicted[chosen])}; but then training finds no minimum.`;
  return `${jump}Point ${z.id} (label ${z.y}) is ${I > 0 ? "harmful" : "helpful"} to test point ${scene.test}: influence ${signed(I, 3)}.${fate}`;
}
