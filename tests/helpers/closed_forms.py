"""Problems whose minimum, or saddle, is a formula."""

import torch

from helpers import LOGISTIC, SQUARED_ERROR, Data, Risk, flatten, mlp


def linear_model(inputs, outputs=1, bias=False):
    """``x ↦ Ax``: with the squared error its minimum is a formula."""
    return flatten(torch.nn.Linear(inputs, outputs, bias=bias))[0]


def of_one_number(loss, y, l2=0.0, X=None):
    """The risk of a linear model without a bias, of the number 1 by default."""
    X = torch.ones(len(y), 1) if X is None else X
    model, _ = flatten(torch.nn.Linear(X.shape[1], 1, bias=False))
    return Risk(model, Data(X.double(), y.double()), loss, l2=l2)


def saddle(device="cpu"):
    """A network of zeros on inputs and labels in balance: the gradient vanishes, and the Hessian is indefinite."""
    X = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double()
    y = torch.tensor([1.0, 0.0, 1.0, 0.0]).double()
    return Risk(mlp()[0], Data(X, y).to(device), LOGISTIC, 1e-3), torch.zeros(33).double().to(device)


class Ridge:
    """Ridge regression, ``R(θ, w) = Σ w_i ½(x_iᵀθ - y_i)² + λ‖θ‖²``, with everything known in closed form."""

    def __init__(self, n=12, p=3, l2=0.1, seed=0, device="cpu"):
        generator = torch.Generator().manual_seed(seed)
        X, X_test = (torch.randn(m, p, generator=generator, dtype=torch.float64).to(device) for m in (n, 4))
        y, y_test = (torch.randn(m, generator=generator, dtype=torch.float64).to(device) for m in (n, 4))
        self.X, self.y, self.n, self.p, self.l2 = X, y, n, p, l2
        self.test = Data(X_test, y_test)
        self.risk = Risk(linear_model(p), Data(X, y), SQUARED_ERROR, l2)
        self.uniform = torch.full_like(y, 1 / n)
        self.theta = self.minimum(self.uniform)

    def hessian(self, w):
        """``Xᵀ diag(w) X + 2λI``."""
        return (self.X.T * w) @ self.X + 2 * self.l2 * torch.eye(self.p, dtype=w.dtype, device=w.device)

    def minimum(self, w):
        """``(Xᵀ diag(w) X + 2λI)⁻¹ Xᵀ diag(w) y``."""
        return torch.linalg.solve(self.hessian(w), self.X.T @ (w * self.y))
