"""The same problem for both sides: `helpers` in Python, and the laboratory's modules in a browser."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from playwright.sync_api import Page
from torch import Tensor, nn

from helpers import Data, Risk, flatten, mlp, ring

# What the tests ask of the modules in one call each. Vectors cross as lists.
ASK = """
const the = laboratory.modules;
const vector = (list) => Float64Array.from(list);
const list = (v) => v && Array.from(v);
const risk = ({ data, weights, l2 }) => ({ data, weights: vector(weights), l2 });
const end = ({ theta, verdict }) => ({ theta: list(theta), verdict });
window.ask = {
  initial: (hidden, seed) => list(the["random.js"].initial(hidden, seed)),
  ring: () => the["scene.js"].ring(),
  output: (theta, x) => the["mlp.js"].output(vector(theta), ...x),
  losses: (theta, data) => data.map((z) => the["mlp.js"].loss(vector(theta), z)),
  gradients: (theta, data) => data.map((z) => list(the["mlp.js"].gradient(vector(theta), z))),
  derivatives: (problem, theta) => {
    const { value, gradient, hessian } = the["mlp.js"].derivatives(risk(problem), vector(theta));
    return { value, gradient: list(gradient), hessian: list(hessian) };
  },
  eigh: (A, n) => {
    const { d, Q } = the["linalg.js"].eigh(vector(A), n);
    return { d: list(d), Q: Q.map(list) };
  },
  cholesky: (A, n) => list(the["linalg.js"].cholesky(vector(A), n)),
  minimise: (problem, start) => {
    const found = the["newton.js"].minimise(risk(problem), vector(start));
    return { ...end(found), norm: found.norm, value: found.value };
  },
  influence: (problem, theta, tests, damping) => {
    const found = the["newton.js"].minimise(risk(problem), vector(theta));
    return tests.map((z) => list(the["influence.js"].influence(risk(problem), found, z, damping)));
  },
  predicted: (I, weights, convention) =>
    I.map((row) => list(the["influence.js"].predictedChange(vector(row), vector(weights), convention))),
  retrainings: (problem, theta, convention, leash) =>
    the["jobs.js"].retrainings(risk(problem), vector(theta), convention, leash).map(end),
  changes: (problem, theta, convention, tests) => {
    const found = the["newton.js"].minimise(risk(problem), vector(theta));
    const ends = the["jobs.js"].retrainings(risk(problem), vector(theta), convention, 0);
    const changes = tests.map((z) => ends.map((e) => the["influence.js"].actualChange(found, e, z)));
    return { changes, thetas: ends.map((e) => list(e.theta)) };
  },
  agreement: (x, y) => the["influence.js"].agreement(x, y),
  follow: (problem, theta, from, to) =>
    the["jobs.js"]
      .follow(problem, vector(theta), from, to)
      .map((stop) => ({ ...end(stop), m: stop.m, broken: stop.broken })),
  section: (problem, theta, from, to) => the["jobs.js"].section(problem, vector(theta), from, to),
  branch: (problem, theta, to = 0) =>
    the["jobs.js"].branch(problem, vector(theta), to).map((stop) => ({ ...stop, theta: list(stop.theta) })),
  there_and_back: (text) => {
    const { scene, understood } = the["scene.js"].decode(text);
    return { text: the["scene.js"].encode(scene), understood, points: scene.points.length };
  },
};
// Text crosses much faster than thousands of numbers. JSON as Python reads it has words for what is no number.
const word = (key, value) => (typeof value === "number" && !Number.isFinite(value) ? `<${value}>` : value);
window.answer = ([name, args]) =>
  JSON.stringify(window.ask[name](...JSON.parse(args)) ?? null, word).replace(/"<(NaN|-?Infinity)>"/g, "$1");
"""


def hurried(script: str) -> str:
    """A laboratory that waits for a shorter moment until it says what is there, as no test has to read it."""
    moment = "const MOMENT = 250;"
    assert script.count(moment) == 1
    return script.replace(moment, "const MOMENT = 20;")


class Laboratory:
    """``lab.minimise(problem, start)`` runs in the browser, and gives plain lists and dictionaries."""

    def __init__(self, page: Page, script: str) -> None:
        self.page = page
        self.trained: dict[Scene, Tensor | None] = {}
        page.set_content("<!doctype html><html lang=en><title>Laboratory</title><body></body></html>")
        page.add_script_tag(content=script)
        page.add_script_tag(content=ASK)

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            asked = json.dumps(args, default=Tensor.tolist, allow_nan=False)
            return json.loads(self.page.evaluate("window.answer", [name, asked]))

        return call


def examples(data: Data) -> list[dict[str, Any]]:
    return [{"x": x, "y": y} for x, y in zip(data.X.tolist(), data.y.tolist(), strict=True)]


@dataclass(frozen=True, eq=False)
class Scene:
    """A problem: data with weights, a network, λ."""

    name: str
    train: Data
    test: Data
    hidden: int = 8
    seed: int = 42
    l2: float = 0.02
    m: Tensor | None = None  # each weight in units of 1/n

    @cached_property
    def model(self) -> tuple[Any, Tensor]:
        if self.hidden:
            return mlp(hidden=self.hidden, seed=self.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return flatten(nn.Linear(2, 1, dtype=torch.float32))

    @cached_property
    def risk(self) -> Risk:
        return Risk(self.model[0], self.train, l2=self.l2)

    @cached_property
    def weights(self) -> Tensor:
        return self.risk.uniform if self.m is None else self.m / self.m.sum()

    @property
    def problem(self) -> dict[str, Any]:
        return {"data": examples(self.train), "weights": self.weights.tolist(), "l2": self.l2}

    def but(self, **changes: Any) -> Scene:
        return replace(self, **changes)


def the_ring(**changes: Any) -> Scene:
    return Scene("ring", *ring()).but(**changes)


def random_scenes(count: int = 20) -> list[Scene]:
    """Data of any shape, labels partly wrong, any number of hidden units, some points heavier than others."""
    rng, scenes = np.random.default_rng(0), []
    for k in range(count):
        n, hidden = int(rng.integers(12, 61)), int(rng.integers(0, 13))
        X = torch.tensor(rng.standard_normal((n + 5, 2)) * rng.uniform(0.5, 2) + rng.standard_normal(2) / 2)
        y = ((X.square().sum(1) > 1.5) ^ torch.tensor(rng.random(n + 5) < 0.1)).double()
        m = torch.tensor(rng.choice([0.5, 1.0, 1.0, 2.0], n)) if k % 2 else None
        l2 = float(10 ** rng.uniform(-2.5, -1.2))
        scenes.append(Scene(f"random {k}", Data(X[:n], y[:n]), Data(X[n:], y[n:]), hidden, k, l2, m))
    return scenes


def degenerate_scenes() -> list[Scene]:
    """What a reader can arrange, and should not be told a number about that means nothing."""
    train, test = ring()
    one_class = Data(train.X, torch.zeros_like(train.y))
    twins = Data(torch.cat([train.X, train.X[:1]]), torch.cat([train.y, train.y[:1]]))
    quarrel = Data(torch.cat([train.X, train.X[:1]]), torch.cat([train.y, 1 - train.y[:1]]))
    X = train.X.clone()
    X[7] = torch.tensor([1e3, -1e3])
    far = Data(X, train.y)
    return [
        Scene("one class", one_class, test),
        Scene("one class, no L2", one_class, test, l2=0.0),
        Scene("two equal points", twins, test),
        Scene("two equal points with different labels", quarrel, test),
        Scene("a point at 1000", far, test),
        Scene("a point at 1000, linear", far, test, hidden=0),
        Scene("no L2", train, test, l2=0.0),
        Scene("next to no L2", train, test, l2=1e-5),
        Scene("collapsed", train, test, l2=0.2),
        Scene("collapsed, on the edge", train, test, l2=0.05),
        Scene("twelve hidden units", train, test, hidden=12),
        Scene("one hidden unit", train, test, hidden=1),
        Scene("no hidden units", train, test, hidden=0),
        Scene("no hidden units, no L2", train, test, hidden=0, l2=0.0),
        Scene("on the brink", train, test, seed=6, l2=0.01),
        Scene("a point without weight", train, test, m=torch.ones(60).double().index_fill(0, torch.tensor([31]), 0.0)),
    ]
