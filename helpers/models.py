"""A model as a function of ONE flat parameter vector ``theta``: gradients are vectors, and the Hessian a matrix.

>>> import torch
>>> line = torch.nn.Linear(2, 1)
>>> model, theta = flatten(line)
>>> model.shapes
{'weight': (1, 2), 'bias': (1,)}
>>> model(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[10.0, 100.0]]))  # 1·10 + 2·100 + 3
tensor([213.])
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize

_TURN = threading.RLock()  # a module that is called holds other parameters than its own; forward mode is a process's


def one_at_a_time(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function for one thread at a time, and out of inference mode."""

    @wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        with _TURN, torch.inference_mode(False):
            return function(*args, **options)

    return wrapped


class FlatModel:
    """Any module as a pure function ``model(theta, X)``; see `flatten`.

    Attributes:
        p: the number of trainable parameters, ``len(theta)``.
        shapes: of each of them by name, in the order in which they stand in ``theta``.
        constants: what else the module computes with, by name: its frozen parameters and its buffers.
        hooks: the layers with hooks, by name.
    """

    def __init__(self, module: nn.Module) -> None:
        _refuse_unfit(module)
        try:
            self._module = copy.deepcopy(module)  # what becomes of the module later changes nothing here
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"the module cannot be copied ({error}). It holds a tensor computed from its parameters (an output "
                "that it keeps; a pruned weight: prune.remove; weight_norm: write g * v / v.norm(dim=1, keepdim=True) "
                "in forward), or what is no part of a model (a lock, a file): delete it first."
            ) from error
        self._recurrent = any(isinstance(layer, nn.RNNBase) for layer in module.modules())
        parameters = dict(self._module.named_parameters())
        self.shapes = {name: tuple(each.shape) for name, each in parameters.items() if each.requires_grad}
        self.constants = {name: each.detach() for name, each in parameters.items() if name not in self.shapes}
        self.constants |= dict(self._module.named_buffers())
        self.hooks = [name for name, each in module.named_modules() if each._forward_hooks or each._forward_pre_hooks]
        self._kept = [(layer, dict(vars(layer))) for layer in self._module.modules()]
        self._sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.p = sum(self._sizes)
        if self.p == 0:
            raise ValueError(
                "the module has no trainable parameters (all may be frozen: requires_grad=False), so there is nothing "
                "to train and no influence."
            )

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """The flat vector ``theta`` (p,) as the module's named trainable parameters."""
        if theta.shape != (self.p,):
            raise ValueError(f"theta has shape {tuple(theta.shape)}, but the model has p = {self.p} parameters.")
        pieces = theta.split(self._sizes)
        return {name: piece.view(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}

    def per_parameter(self, value: Callable[[str], float]) -> Tensor:
        """The vector (p,) that holds ``value(name)`` at each entry of the parameter with that name."""
        values = torch.tensor([float(value(name)) for name in self.shapes], dtype=torch.float64, device="cpu")
        return values.repeat_interleave(torch.tensor(self._sizes, device="cpu"))

    def __call__(self, theta: Tensor, X: Tensor) -> Tensor:
        """The module's output on ``X``, an (n, 1) as (n,); constants follow the format and the device of ``theta``."""
        if parametrize._cache_enabled:
            raise ValueError("parametrize.cached() keeps weights from one theta for the next: leave it first.")
        constants = {
            name: each.to(theta.device, theta.dtype if each.is_floating_point() else each.dtype)
            for name, each in self.constants.items()
        }
        with _twice_differentiable(self._recurrent):
            output = functional_call(self._module, self.unflatten(theta) | constants, (X,))
        for layer, before in self._kept:  # a tensor that a layer keeps of this call may not be that of the next theta
            for name in [k for k, v in vars(layer).items() if isinstance(v, Tensor) and v is not before.get(k)]:
                vars(layer).update({name: before[name]}) if name in before else delattr(layer, name)
        if not isinstance(output, Tensor):
            raise TypeError(
                f"the module returns a {type(output).__name__}, not a tensor: wrap it in a module whose forward "
                "returns the outputs alone, one row an example."
            )
        return output.squeeze(-1) if output.ndim == 2 and output.shape[-1] == 1 else output


def _refuse_unfit(module: nn.Module) -> None:
    """Raise ValueError where the loss of an example is no function of (theta, example), or theta no real vector."""
    if isinstance(module, torch.jit.ScriptModule | nn.DataParallel):
        raise ValueError(f"the module is a {type(module).__name__}: give the module that it was made from.")
    for name, layer in module.named_modules():
        training, why = layer.training, ""
        if isinstance(layer, nn.modules.dropout._DropoutNd | nn.RReLU) and training and getattr(layer, "p", 1) > 0:
            why = "is random in training mode, so the loss has no gradient to differentiate twice"
        if isinstance(layer, nn.utils.parametrizations._SpectralNorm) and training:
            why = "goes on estimating at every call in training mode, so its output is another each time"
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and (training or not layer.track_running_stats):
            why = "mixes the examples of a batch, so no example has a loss of its own"
        if why:
            raise ValueError(
                f"layer '{name}' ({type(layer).__name__}) {why}: call module.eval() first, or use another layer."
            )
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(f"parameter '{name}' has no shape yet: call the module once, on a batch, before flatten.")
        if not parameter.is_floating_point():
            raise ValueError(
                f"parameter '{name}' is {parameter.dtype}, and theta is a vector of real numbers: keep real and "
                "imaginary parts as two parameters, joined by torch.complex in forward."
            )
    _refuse_shared(module)


def _refuse_shared(module: nn.Module) -> None:
    """Raise ValueError if two parameters hold the same numbers; parts of one buffer that do not overlap may be two."""
    taken: dict[int, Tensor] = {}  # by storage, which of its numbers belong to a parameter
    for name, parameter in module.named_parameters():
        storage = parameter.untyped_storage()
        if not (parameter.numel() and storage.data_ptr()):
            continue
        numbers = taken.setdefault(
            storage.data_ptr(),
            torch.zeros(storage.nbytes() // parameter.element_size(), dtype=torch.bool, device="cpu"),
        )
        its = numbers.as_strided(parameter.shape, parameter.stride(), parameter.storage_offset())
        if its.any():
            raise ValueError(
                f"parameter '{name}' shares its numbers with another parameter, and theta would hold them twice: use "
                "one Parameter in both places (W, and W.T where it is transposed)."
            )
        its.fill_(True)


@contextmanager
def _twice_differentiable(recurrent: bool) -> Iterator[None]:
    """Attention by matrix products, recurrent layers without cuDNN: those kernels have no second derivative."""
    fast, cudnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.cudnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=cudnn and not recurrent):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def flatten(module: nn.Module, dtype: torch.dtype = torch.float64) -> tuple[FlatModel, Tensor]:
    """A module as a function of one flat vector, and the vector of its present trainable parameters.

    The module is copied and left as it is. Parameters with ``requires_grad=False`` keep their values and are not in the
    vector; tied parameters are in it once.

    Returns:
        ``(model, theta)``, with ``theta`` (p,) detached, in ``dtype``, on the module's device.

    Raises:
        ValueError: for a module without trainable parameters, or with a layer that is random or mixes the examples of
            a batch. What no type tells, `Risk` finds.
    """
    model = FlatModel(module)
    theta = [each.detach().reshape(-1).to(dtype) for each in module.parameters() if each.requires_grad]
    return model, torch.cat(theta)


def mlp(inputs: int = 2, hidden: int = 8, outputs: int = 1, seed: int = 42) -> tuple[FlatModel, Tensor]:
    """The book's network ``inputs -> hidden (tanh) -> outputs``, with PyTorch's default initialisation.

    With the default sizes it has 2·8 + 8 + 8·1 + 1 = 33 parameters. The global random state is left untouched, and
    the initialisation, returned as `flatten` does in float64, is drawn in float32.
    """
    form: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(inputs, hidden, **form), nn.Tanh(), nn.Linear(hidden, outputs, **form))
    return flatten(module)
