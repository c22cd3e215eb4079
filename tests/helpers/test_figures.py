"""The figures are the same bytes whatever a reader's own settings of matplotlib are."""

import os
import subprocess
import sys
from pathlib import Path

import helpers

# Of every kind: fonts, sizes, colours, lines, ticks, grids, layout, and how the file is written.
PERSONAL = """
figure.figsize: 3, 3
figure.dpi: 60
figure.facecolor: black
figure.autolayout: True
savefig.dpi: 200
savefig.bbox: tight
savefig.transparent: True
font.family: monospace
font.size: 20
mathtext.fontset: cm
axes.prop_cycle: cycler("color", ["red", "yellow"])
axes.grid: True
axes.facecolor: pink
axes.titlelocation: left
axes.formatter.limits: -1, 1
axes.xmargin: 0.3
lines.marker: s
lines.linestyle: --
lines.antialiased: False
scatter.marker: x
image.cmap: jet
xtick.direction: in
ytick.right: True
grid.linestyle: :
legend.loc: lower left
path.sketch: 1, 100, 2
interactive: True
figure.max_open_warning: 7
"""

DRAW = """
import hashlib, io, sys
import matplotlib, torch
matplotlib.use("svg" if "svg" in sys.argv else "agg")
import matplotlib.pyplot as plt
from helpers import ring, setup
from helpers.page.figures import draw_points

def drawn():
    fig, (left, right) = plt.subplots(1, 2)
    draw_points(left, ring()[0])
    left.set_title("$x^2$")
    left.legend()
    right.plot([1, 2e5, 3], label="a")
    right.imshow([[1, 2], [3, 4]])
    written = io.BytesIO()
    fig.savefig(written, format="png")
    return hashlib.sha256(written.getvalue()).hexdigest()

torch.set_default_dtype(torch.float64)
print(drawn())
setup()
print(drawn(), matplotlib.get_backend(), plt.rcParams["interactive"], plt.rcParams["figure.max_open_warning"])
"""


def test_a_personal_matplotlibrc_changes_no_byte(tmp_path):
    found = {}
    for name, settings in (("plain", ""), ("personal", PERSONAL)):
        (tmp_path / name).write_text(settings, encoding="utf-8")
        environment = os.environ | {
            "MATPLOTLIBRC": str(tmp_path / name),
            "PYTHONPATH": str(Path(helpers.__file__).parent.parent),
        }
        ran = subprocess.run(
            [sys.executable, "-c", DRAW, "svg" if name == "personal" else "agg"],
            env=environment, capture_output=True, text=True, encoding="utf-8", check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        found[name] = ran.stdout.split()
    plain, personal = found["plain"], found["personal"]
    assert plain[0] != personal[0]  # the settings were taken note of
    assert plain[1] == personal[1]
    # What is not the figure's stays the reader's.
    assert personal[2:] == ["svg", "True", "7"]
