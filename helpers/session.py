"""What a notebook fixes for its own session, before its first computation."""

import torch

from helpers.figures import use_book_style


def setup() -> None:
    """Fix the number format (float64), one thread, and the figure style.

    Call it once, at the top of a notebook. Matrices as small as the book's are faster on one thread than on several,
    and one thread adds numbers in one order, so that the printed digits do not depend on the machine.
    """
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.set_printoptions(precision=4, sci_mode=False, linewidth=78)
    use_book_style()
