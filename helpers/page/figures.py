"""The book's figures: one style, and the drawings that recur. Each function takes ``ax`` and draws into it."""

from __future__ import annotations

from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from ..data import Data
from ..models import FlatModel
from ..retraining import agreement

# Colours of Okabe and Ito (2008), which colour-blind readers can tell apart; their vermilion is a red here.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#CC3311", "#CC79A7", "#56B4E9", "#666666",
)  # fmt: skip


def use_book_style() -> None:
    """Set matplotlib's defaults to the book's figure style, for this session.

    Everything else that shapes a figure is set back to what matplotlib comes with, whatever your ``matplotlibrc`` says.
    The backend stays yours.
    """
    matplotlib.rcdefaults()
    plt.rcParams.update({
        "figure.figsize": (6.6, 4.2),
        "figure.dpi": 110,
        "figure.constrained_layout.use": True,
        "font.size": 10.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "legend.framealpha": 0.9,  # so that nobody takes its marks for points
        "legend.fancybox": False,
        "legend.edgecolor": "0.85",
        "lines.linewidth": 1.8,
        "path.simplify": False,  # it drops points by thresholds, and a last bit on another machine moves pixels
    })  # fmt: skip


def draw_points(ax: Axes, data: Data, **style: Any) -> None:
    """The examples in the plane: label 0 as blue circles, label 1 as orange triangles."""
    for label, marker, colour in ((0, "o", BLUE), (1, "^", ORANGE)):
        X = data.X[data.y == label]
        options: dict[str, Any] = {"s": 34, "linewidths": 0.6, "edgecolors": "black", "label": f"label {label}"} | style
        ax.scatter(X[:, 0], X[:, 1], marker=marker, c=colour, **options)
    plane(ax)


def plane(ax: Axes, reach: float = 3.6) -> None:
    """Axes of the input plane: equal scales, ``[-reach, reach]`` both ways, named."""
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")


def draw_boundary(ax: Axes, model: FlatModel, theta: Tensor, reach: float = 3.6, **style: Any) -> None:
    """The decision boundary: where the logit of the model with parameters ``theta`` (p,) is zero."""
    grid = torch.linspace(-reach, reach, 121, dtype=theta.dtype)
    x1, x2 = torch.meshgrid(grid, grid, indexing="xy")
    logits = model(theta, torch.stack([x1.flatten(), x2.flatten()], 1)).reshape(x1.shape).detach()
    options: dict[str, Any] = {"colors": "black", "linewidths": 1.8}
    ax.contour(x1, x2, logits, levels=[0.0], **(options | style))


def draw_prediction(ax: Axes, predicted: Tensor, actual: Tensor, colour: str = BLUE, **style: Any) -> None:
    """Predicted against actual changes of a test loss, the line ``y = x``, and how well they agree in the legend."""
    found = agreement(predicted, actual)
    label = (
        f"$r$ = {found.r:.3f}, slope {found.slope:.2f}\n"
        f"intercept {found.intercept:.4f}\nlargest error {found.largest_error:.4f}"
    )
    ax.axline((0, 0), slope=1, color=GREY, linewidth=1, linestyle="--", label="$y = x$")
    options = {"s": 22, "alpha": 0.8, "linewidths": 0} | style
    ax.scatter(predicted.flatten(), actual.flatten(), c=colour, label=label, **options)
    ax.set(xlabel="predicted change of the test loss", ylabel="actual change of the test loss")
    ax.legend(loc="upper left", fontsize=9)
