"""Examples ``z = (x, y)``, and the two problems on which the book computes.

>>> import torch
>>> data = Data(torch.eye(3), torch.tensor([0.0, 1.0, 0.0]))
>>> len(data), data[1].X.tolist(), data[1].y.tolist()
(3, [[0.0, 1.0, 0.0]], [1.0])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def differentiable(tensor: Tensor) -> Tensor:
    """A tensor of inference mode as a copy that can be differentiated by; any other as it is."""
    with torch.inference_mode(False):
        return tensor.clone() if tensor.is_inference() else tensor


def check_tensor(name: str, value: object) -> None:
    """Raise TypeError for what is no tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} is a {type(value).__name__}, not a tensor: torch.as_tensor(...) converts arrays and lists."
        )


def check_weights(weights: Tensor, n: int) -> Tensor:
    """``weights`` (n,) if they can be used; raises TypeError or ValueError if not."""
    check_tensor("weights", weights)
    if weights.shape != (n,):
        raise ValueError(
            f"weights have shape {tuple(weights.shape)}, but there are n = {n} training examples: "
            f"give one weight each, shape ({n},)."
        )
    if bad := (~torch.isfinite(weights)).nonzero().flatten().tolist():
        raise ValueError(f"weights are not finite at {bad[:5]}.")
    return differentiable(weights)


@dataclass(frozen=True)
class Data:
    """``n`` examples ``z_i = (x_i, y_i)``, detached from whatever graph they come from.

    Args:
        X: inputs, shape ``(n, ...)``, of any dtype: numbers, or integers such as the ids of tokens.
        y: targets, shape ``(n,)`` or ``(n, ...)``; on the device of ``X``.

    Raises:
        TypeError: if one of them is no tensor, or a sparse or nested one.
        ValueError: if there is no example, the lengths or devices differ, or a value is not finite.
    """

    X: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        for name, values in list(vars(self).items()):
            if not isinstance(values, Tensor):
                raise TypeError(
                    f"{name} is a {type(values).__name__}: X and y must be tensors that hold all examples at once. "
                    "torch.as_tensor(...) converts arrays and lists; for a dataset, torch.stack([x for x, y in it])."
                )
            if values.layout != torch.strided or values.is_nested:
                raise TypeError(
                    f"{name} is a sparse or nested tensor: make it a dense one, by to_dense() or by padding."
                )
            object.__setattr__(self, name, differentiable(values).detach())
        if self.X.ndim == 0 or self.y.ndim == 0 or len(self.X) == 0 or len(self.X) != len(self.y):
            raise ValueError(
                f"X has shape {tuple(self.X.shape)} and y {tuple(self.y.shape)}: "
                "both need the same number of examples, at least one, along their first axis."
            )
        if self.X.device != self.y.device:
            raise ValueError(f"X is on {self.X.device} and y on {self.y.device}: move both to one device.")
        for name, values in vars(self).items():
            bad = (~torch.isfinite(values)).reshape(len(values), -1).any(1).nonzero().flatten().tolist()
            if bad:
                raise ValueError(f"{name} is not finite in examples {bad[:5]}: remove or impute them.")

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Data:
        """Some of the examples; one integer, of whatever type, gives a `Data` of one."""
        X, y = self.X[index], self.y[index]
        return Data(X, y) if X.ndim == self.X.ndim else Data(X[None], y[None])

    def to(self, device_or_dtype: torch.device | torch.dtype | str) -> Data:
        """The same examples on another device, or in another floating-point format (integers stay integers)."""
        if not isinstance(device_or_dtype, torch.dtype):
            return Data(self.X.to(device_or_dtype), self.y.to(device_or_dtype))
        return Data(*(part.to(device_or_dtype) if part.is_floating_point() else part for part in (self.X, self.y)))


def digits(n: int = 1400, seed: int = 0) -> tuple[Data, Data]:
    """scikit-learn's handwritten digits: 8×8 pixels from 0 to 1, ten classes, in an order drawn by ``seed``.

    Returns:
        ``(train, test)``: the first ``n`` of 1,797 images and the rest, ``X (·, 64)`` in float64, ``y (·,)`` integer.

    Raises:
        ImportError: without scikit-learn.
        ValueError: for an ``n`` outside 1 … 1796.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    if not 1 <= n < len(labels):
        raise ValueError(f"n = {n} must lie between 1 and {len(labels) - 1}, so that test images are left.")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed), device="cpu")
    X, y = torch.from_numpy(pixels / 16)[order], torch.from_numpy(labels)[order].long()
    return Data(X[:n], y[:n]), Data(X[n:], y[n:])


def ring(n: int = 60, n_test: int = 20, seed: int = 0) -> tuple[Data, Data]:
    """The ring problem: points of the plane, labelled 1 where ``x_1² + x_2² > 1.5``.

    The inputs are standard normal, drawn in float32 (training points first) and then converted to float64, so that
    both formats have the same problem to the last bit.

    Returns:
        ``(train, test)``, each with ``X (·, 2)`` and ``y (·,)`` in float64.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Data:
        X = torch.randn(count, 2, generator=generator, dtype=torch.float32, device="cpu")
        y = (X.square().sum(1) > 1.5).to(torch.float64)
        return Data(X.to(torch.float64), y)

    return draw(n), draw(n_test)
