"""A model as a function of ONE flat parameter vector ``theta``: gradients are vectors, and the Hessian a matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

# Layers for which "the loss of one example" is not a function of (theta, example) alone.
_RANDOM = (nn.modules.dropout._DropoutNd,)
_COUPLED = (nn.modules.batchnorm._BatchNorm,)


class FlatModel:
    """Any ``torch.nn.Module`` as a pure function ``model(theta, X)``; see `flatten`.

    Attributes:
        p: the number of parameters, ``len(theta)``.
        shapes: each parameter's name and shape, in the order in which they stand in ``theta``.
    """

    def __init__(self, module: nn.Module) -> None:
        for name, layer in module.named_modules():
            if isinstance(layer, _RANDOM) and layer.training and layer.p > 0:
                raise ValueError(
                    f"layer '{name}' ({type(layer).__name__}) is random in training mode, so the loss has no "
                    "gradient to differentiate twice: call module.eval() first."
                )
            if isinstance(layer, _COUPLED) and (layer.training or not layer.track_running_stats):
                raise ValueError(
                    f"layer '{name}' ({type(layer).__name__}) mixes the examples of a batch, so no example has a "
                    "loss of its own: call module.eval() first, or use another normalisation."
                )
        self._module = module
        self.shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
        self._sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.p = sum(self._sizes)
        if self.p == 0:
            raise ValueError("the module has no parameters, so there is nothing to train and no influence.")

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """The flat vector ``theta`` (p,) as the module's named parameters."""
        if theta.shape != (self.p,):
            raise ValueError(f"theta has shape {tuple(theta.shape)}, but the model has p = {self.p} parameters.")
        pieces = theta.split(self._sizes)
        return {name: piece.view(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}

    def __call__(self, theta: Tensor, X: Tensor) -> Tensor:
        """The module's output on ``X`` with parameters ``theta`` (p,); an output of shape (n, 1) comes back as (n,)."""
        output = functional_call(self._module, self.unflatten(theta), (X,))
        return output.squeeze(-1) if output.ndim == 2 and output.shape[-1] == 1 else output


def flatten(module: nn.Module, dtype: torch.dtype = torch.float64) -> tuple[FlatModel, Tensor]:
    """A module as a function of one flat vector, and the vector of its present parameters.

    The module is left as it is: ``model(theta, X)`` puts ``theta`` in the place of its parameters for one call.
    Its buffers are used as they stand, so convert them (``module.double()``) if it has any.

    Returns:
        ``(model, theta)``, with ``theta`` of shape (p,), detached, in ``dtype``, on the module's device.

    Raises:
        ValueError: for a module without parameters, or with layers that are random (active dropout) or that mix the
            examples of a batch (batch normalisation in training mode).
    """
    model = FlatModel(module)
    theta = torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()]).to(dtype)
    return model, theta


def mlp(inputs: int = 2, hidden: int = 8, outputs: int = 1, seed: int = 42) -> tuple[FlatModel, Tensor]:
    """The book's network ``inputs -> hidden (tanh) -> outputs``, with PyTorch's default initialisation.

    With the default sizes it has 2·8 + 8 + 8·1 + 1 = 33 parameters. The global random state is left untouched.

    Returns:
        ``(model, theta)`` as `flatten` does; ``theta`` is the initialisation, drawn in float32, in float64.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(
            nn.Linear(inputs, hidden, dtype=torch.float32),
            nn.Tanh(),
            nn.Linear(hidden, outputs, dtype=torch.float32),
        )
    return flatten(module)
