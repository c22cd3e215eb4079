"""Influences by plain `torch.autograd` on an ordinary module: loops, no `torch.func`, and nothing of the helpers."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def trainable(module):
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def put(module, theta):
    """Write ``theta`` into the trainable parameters."""
    pieces = theta.split([parameter.numel() for parameter in trainable(module)])
    with torch.no_grad():
        for parameter, piece in zip(trainable(module), pieces, strict=True):
            parameter.copy_(piece.view_as(parameter))


def gradient(module, value, create_graph=False):
    found = torch.autograd.grad(value, trainable(module), create_graph=create_graph, materialize_grads=True)
    return torch.cat([each.reshape(-1) for each in found])


def hessian(module, objective):
    with sdpa_kernel(SDPBackend.MATH):
        first = gradient(module, objective(), create_graph=True)
        rows = [torch.autograd.grad(g, trainable(module), retain_graph=True, materialize_grads=True) for g in first]
    return torch.stack([torch.cat([each.reshape(-1) for each in row]) for row in rows])


def influence(module, objective, loss, train, test):
    """``-G_test H⁻¹ Gᵀ`` at the module's present parameters; ``loss(outputs, y)`` of one example, outputs (1, …)."""

    def gradients(data):
        X, y = data
        each = [loss(module(X[i : i + 1]), y[i : i + 1]).sum() for i in range(len(X))]
        return torch.stack([gradient(module, value) for value in each])

    with sdpa_kernel(SDPBackend.MATH):
        G, G_test = gradients(train), gradients(test)
    return -G_test @ torch.linalg.solve(hessian(module, objective), G.T)
