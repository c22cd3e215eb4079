"""The book's figures: one style, and the drawings that recur. Each function takes ``ax`` and draws."""

from __future__ import annotations

import matplotlib.pyplot as plt

# Colours of Okabe and Ito (2008), which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#666666",
)  # fmt: skip


def use_book_style() -> None:
    """Set matplotlib's defaults to the book's figure style, for this session."""
    plt.rcParams.update({
        "figure.figsize": (6.4, 4.0),
        "figure.dpi": 110,
        "figure.constrained_layout.use": True,
        "font.size": 10.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
    })  # fmt: skip
