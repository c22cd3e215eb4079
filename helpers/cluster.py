"""Retrainings and influences on more than one machine: in chunks, by `dask.distributed` (``pip install …[cluster]``).

A task is one chunk, some groups to leave out or some test points. It calls the very function that one machine would
call, `leave_group_out` or `influence`, on one thread, and a process takes its tasks in turn: start workers with one
thread each. ``Client(threads_per_worker=1)`` starts some here, ``Client("tcp://host:8786")`` takes those of a scheduler
elsewhere.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import io
import os
import pickle
import sys
import sysconfig
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from .curvature import HessianOperator
from .data import Data
from .files import write_whole
from .influences import Convention, influence
from .optimum import Minima
from .retraining import leave_group_out, leave_out_weights
from .risk import Risk
from .solvers import Solution, conjugate_gradients

if TYPE_CHECKING:  # the library is imported where it is needed: not every user of the helpers has a cluster
    from distributed import Client

_LIBRARIES = [sysconfig.get_path(each) for each in ("stdlib", "platstdlib", "purelib", "platlib")]
_PLACES = [*map(Path, _LIBRARIES), Path(sys.base_prefix, "DLLs"), Path(__file__).parent]
_INSTALLED = [place.resolve() for place in _PLACES]  # what lies there belongs to nobody's own code
_MADE = {"_abc_impl", "_backward_cls"}  # by Python and torch, from the rest of a class
_Task = Callable[[Any, Any], Any]  # a function of what is shared and of one piece
_Form = Sequence[tuple[torch.dtype, tuple[int, ...]]]  # of the tensors in one result


def leave_group_out_on(
    client: Client,
    risk: Risk,
    theta: Tensor,
    groups: Sequence[Sequence[int]] | None = None,
    *,
    convention: Convention = "mean",
    weights: Tensor | None = None,
    start: Tensor | None = None,
    gtol: float | None = None,
    throw: bool = True,
    chunk: int = 64,
    store: Path | str | None = None,
) -> Minima:
    """`leave_group_out` on a cluster, ``chunk`` groups a task: the same minima, in the order of ``groups``.

    Without ``groups`` each point is left out alone, as by `leave_one_out`; the arguments not named here are those of
    `leave_group_out`.

    Args:
        chunk: how many groups a task retrains in one batch; it also computes and factors the Hessian at ``theta``.
        store: a folder in which every chunk is kept as soon as it has arrived, under a name made of all that decides
            its result: the inputs, the code of your own modules, the versions of the helpers and of torch. A later call
            takes up what is there, whatever became of workers, scheduler and client; several clients may share it. A
            file that is not whole, or not what its name says, is never believed: a warning names it, and its chunk is
            computed again. If a chunk cannot be kept, as on a full disk, a warning says so, and nothing is lost. The
            name cannot see what your code reads from a file, or looks up by a name that it computes.

    Raises:
        NotConverged, NotAMinimum: as `leave_group_out`, when all is done.
        NotStationary, NotPositiveDefinite, ValueError: of the first chunk that failed, after all others are done. Its
            ``finished`` holds the results of the other chunks by their first group.
        KilledWorker: in the same way, for a chunk under which one worker after another died.
        OSError, TypeError: if ``store`` is no folder and cannot be made one, or there is no name for something that
            decides the result, such as a lock. Nothing has been computed then.
    """
    groups = [[i] for i in range(risk.n)] if groups is None else groups
    pieces = [
        (groups[k : k + chunk], start if start is None or start.ndim == 1 else start[k : k + chunk])
        for k in _firsts(len(groups), chunk)
    ]
    d = theta.dtype
    W = leave_out_weights(risk.n, groups, convention, weights=weights, dtype=d, device=theta.device)  # or a refusal
    p, sizes = len(theta), [len(g) for g, _ in pieces]
    forms = [[(d, (m, p)), (d, (m,)), (d, (m,)), (torch.bool, (m,)), (d, (m,))] for m in sizes]
    shared = (risk, theta, {"convention": convention, "weights": weights, "gtol": gtol})
    found = _run(client, _leave_out, shared, pieces, ("group", chunk), store, forms)
    thetas, norms, smallest, certified, tolerances = map(torch.cat, zip(*found, strict=True))
    minima = Minima(thetas, norms, smallest, certified, float(tolerances.max()))
    return minima.or_raise(risk, W, "group") if throw else minima


def influence_on(
    client: Client,
    risk: Risk,
    theta: Tensor,
    test: Data,
    *,
    weights: Tensor | None = None,
    solve: Callable[[HessianOperator, Tensor], Solution | Tensor] = conjugate_gradients,
    gtol: float | None = None,
    chunk: int = 16,
    store: Path | str | None = None,
) -> Tensor:
    """`influence` on a cluster, ``chunk`` test points a task, shape (n_test, n); arguments as `leave_group_out_on`.

    Conjugate gradients share nothing between test points, so the tasks repeat no work. `direct` would factor ``H`` in
    every task; factor it once, and ``solve=lambda H, B: torch.cholesky_solve(B, L)`` takes ``L`` along.
    """
    pieces = [test[k : k + chunk] for k in _firsts(len(test), chunk)]
    shared = (risk, theta, {"weights": weights, "solve": solve, "gtol": gtol})
    forms = [[(theta.dtype, (len(piece), risk.n))] for piece in pieces]
    return torch.cat(_run(client, _influence, shared, pieces, ("test point", chunk), store, forms))


def _leave_out(shared: Any, piece: Any) -> tuple[Tensor, ...]:
    (risk, theta, options), (groups, start) = shared, piece
    found = leave_group_out(risk, theta, groups, start=start, throw=False, **options)
    return *found.rows, torch.full_like(found.gradient_norms, found.tolerance)


def _influence(shared: Any, piece: Any) -> Tensor:
    risk, theta, options = shared
    return influence(risk, theta, piece, **options)


def _firsts(count: int, chunk: int) -> range:
    if count < 1 or chunk < 1:
        raise ValueError(f"{count} problems in chunks of {chunk}: there must be at least one of each.")
    return range(0, count, chunk)


_one_at_a_time = threading.Lock()  # the number of threads is that of a process, not of a task
_shared: dict[str, Any] = {}  # by `_at_hand`


def _attempt(function: _Task, key: str, packed: bytes, piece: Any) -> Any:
    """One task. It is one of several on its machine, so it must not take all cores for itself, as torch would."""
    from distributed import get_worker

    with _one_at_a_time:
        get_worker().log_event("chunk begun", os.getpid())  # for whoever watches the topic
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return function(_shared[key] if key in _shared else pickle.loads(packed), piece)
        finally:
            torch.set_num_threads(threads)


def _run(
    client: Client,
    function: _Task,
    shared: Any,
    pieces: Sequence[Any],
    counted: tuple[str, int],
    store: Path | str | None,
    forms: Sequence[_Form],
) -> list[Any]:
    """``function(shared, piece)`` for every piece, in their order: from the store, or by a task. A result has its
    ``form``."""
    from distributed import as_completed

    item, chunk = counted
    files = {} if store is None else _files(Path(store), function, shared, pieces)
    done = {k: result for k, file in files.items() if (result := _read(file, forms[k])) is not None}
    failed: dict[int, Exception] = {}
    with _at_hand(shared) as key:
        todo = _submit(client, function, key, shared, {k: piece for k, piece in enumerate(pieces) if k not in done})
        for future in as_completed(list(todo), loop=client.loop):
            k = todo.pop(future)
            try:
                done[k] = future.result()
            except Exception as error:
                error.add_note(f"In the chunk that begins with {item} {k * chunk}.")
                failed[k] = error
                continue
            try:
                if k in files:
                    _write(files[k], done[k])
            except OSError as error:  # no reason to lose what has been computed
                warnings.warn(f"{files[k]} cannot be kept, and perhaps others: {error}", stacklevel=3)
                files = {}
    if failed:
        first = failed[min(failed)]
        vars(first)["finished"] = {k * chunk: done[k] for k in sorted(done)}
        raise first
    return [done[k] for k in range(len(pieces))]


@contextlib.contextmanager
def _at_hand(shared: Any) -> Iterator[str]:
    """Its key, for workers in this very process: to unpack it there would put copies in the place of its classes."""
    key = uuid.uuid4().hex
    _shared[key] = shared
    try:
        yield key
    finally:
        del _shared[key]


def _submit(client: Client, function: _Task, key: str, shared: Any, left: Mapping[int, Any]) -> dict[Any, int]:
    """A task for each piece that is left, and which it is."""
    import cloudpickle  # type: ignore[import-untyped]
    import dask

    # What all chunks share travels as bytes: a worker may send it on while it computes with it, and a model that is
    # being called holds other parameters than its own.
    common: Any = cloudpickle.dumps(shared)
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": 2**60}):
        # It travels once, and as the result of a task: if all workers that hold it die, the scheduler has it made once
        # more. Scattered data have no such recipe. But the scheduler starts tasks where what they need lies already;
        # it spreads them only if there are more than two for each thread. So a few tasks carry it with them.
        if len(left) > 2 * sum(client.nthreads().values()):
            common = client.submit(bytes, common, pure=False)  # bytes of bytes are themselves
        return {client.submit(_attempt, function, key, common, piece, pure=False): k for k, piece in left.items()}


def _files(store: Path, function: _Task, shared: Any, pieces: Sequence[Any]) -> dict[int, Path]:
    """The file of each piece in the store, named by all that decides its result."""
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"The store {store} is no folder and cannot be made one: {error}.") from error
    try:
        inputs = _name(function.__name__, shared)
        code = _name([module.read_bytes() for module in sorted(Path(__file__).parent.glob("*.py"))])
        return {k: store / f"{_name(code, inputs, piece)}.pt" for k, piece in enumerate(pieces)}
    except Exception as error:
        raise TypeError(
            f"the store could not tell whether its results still hold: no name can be made of something in the model, "
            f"the loss or the solver, or in a class or module of yours that they use ({error}). Make it inside the "
            "function that needs it, or leave out store=."
        ) from error


def _name(*inputs: Any, seen: dict[int, Any] | None = None) -> str:
    """A hash of everything in the inputs, the same in any process: of numbers their bytes, of functions, classes and
    modules their code as it was loaded. Only what is installed counts by its name alone."""
    import cloudpickle

    met = {} if seen is None else seen  # kept alive, so that no other gets the same id

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, set | frozenset):  # whose order differs between processes
                return sorted(_name(each, seen=met.copy()) for each in value)
            if not isinstance(value, Tensor):
                return None
            content = value.detach().cpu().contiguous().flatten().view(torch.uint8)  # NumPy has no bfloat16
            return str(value.dtype), tuple(value.shape), content.numpy().tobytes(), sorted(vars(value).items())

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, functools._lru_cache_wrapper | functools.cached_property):
                return repr, (getattr(value, "func", None) or vars(value)["__wrapped__"],)
            if isinstance(value, TypeVar):  # it stands in annotations only
                return repr, (value.__name__,)
            if not isinstance(value, type | FunctionType | ModuleType) or _is_installed(value):
                return super().reducer_override(value)
            if id(value) in met:
                return repr, (list(met).index(id(value)),)
            met[id(value)] = value
            return repr, (_code(value),)

    written = io.BytesIO()
    Pickler(written).dump((torch.__version__, inputs))
    return hashlib.sha256(written.getvalue()).hexdigest()[:32]


def _is_installed(value: type | FunctionType | ModuleType) -> bool:
    """Whether it belongs to Python, to an installed package, or to the helpers."""
    name = value.__name__ if isinstance(value, ModuleType) else value.__module__ or ""
    if name == "__main__":
        return False
    package = name.partition(".")[0]  # some modules of a package that is compiled have no file of their own
    origin, of_package = (getattr(sys.modules.get(each), "__file__", None) for each in (name, package))
    if not (origin or of_package):
        return package in sys.stdlib_module_names  # compiled into Python
    file = Path(str(origin or of_package)).resolve()
    # Or anywhere that packages are installed to: the user's own folder, another environment's by a .pth file.
    elsewhere = not {"site-packages", "dist-packages"}.isdisjoint(file.parts)
    return elsewhere or any(file.is_relative_to(place) for place in _INSTALLED)


def _code(value: type | FunctionType | ModuleType) -> Any:
    """What a class, a function or a module does: its code, its constants, and what it refers to by name."""
    if isinstance(value, ModuleType):
        return value.__name__, sorted((k, v) for k, v in vars(value).items() if not k.startswith("__"))
    if isinstance(value, type):
        members = sorted((k, v) for k, v in vars(value).items() if k not in _MADE)
        return value.__qualname__, type(value), value.__bases__, members
    codes, pieces = [value.__code__], []
    for code in codes:  # and those inside it
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]
        constants = [each for each in code.co_consts if not isinstance(each, CodeType)]
        tables = code.co_code, code.co_exceptiontable, code.co_flags
        pieces.append((tables, constants, code.co_names, code.co_varnames))
    closure = [cell.cell_contents for cell in value.__closure__ or ()]
    used = _used(value, codes)
    return value.__qualname__, pieces, value.__defaults__, value.__kwdefaults__, closure, vars(value), used


def _used(function: FunctionType, codes: Sequence[CodeType]) -> list[tuple[str, Any]]:
    """What the names in a function's code stand for: in its globals, and in modules of one's own that it uses."""
    names = {name for code in codes for name in code.co_names}
    found, spaces = [], [function.__globals__]
    steps = [step for code in codes for step in dis.get_instructions(code)]
    for level, listed, step in zip(steps, steps[1:], steps[2:], strict=False):
        if step.opname == "IMPORT_NAME":  # inside it: what it finds there is seen only once it is loaded
            with contextlib.suppress(Exception):  # whatever a module does as it is loaded
                module = __import__(step.argval, function.__globals__, None, listed.argval or (), level.argval)
                spaces += [] if _is_installed(module) else [vars(module)]
    for space in spaces:
        for name in sorted(names & space.keys()):
            each = space[name]
            if not isinstance(each, ModuleType) or _is_installed(each):
                found.append((name, each))
            elif all(vars(each) is not other for other in spaces):
                spaces.append(vars(each))
    return found


def _read(file: Path, form: _Form) -> Any:
    """The result in the file, or None if there is none that can be believed: nothing is unpacked that is not whole."""
    try:
        seal, _, content = file.read_bytes().partition(b"\n")
        words = seal.decode("ascii", "replace").split(" ")
        if len(words) != 4 or words[::2] != ["chunk", "sha256"]:
            raise ValueError("it does not begin with a name and a checksum")
        if words[1] != file.stem:
            raise ValueError(f"it is the file of {words[1]}")
        if seal != _seal(file, content):
            raise ValueError("its checksum does not fit, so it was cut short or altered")
        result = torch.load(io.BytesIO(content), weights_only=True)
        found = [(part.dtype, tuple(part.shape)) for part in (result if isinstance(result, tuple) else (result,))]
        if found != form:
            raise ValueError(f"it holds {found}, not {form}")
        return result
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever it is: a chunk can be computed again
        why = str(error).partition("\n")[0] or type(error).__name__
        warnings.warn(f"{file} is not believed, its chunk is computed again: {why}", stacklevel=5)
        return None


def _write(file: Path, result: Any) -> None:
    """The whole file or nothing of it, and sealed."""
    packed = io.BytesIO()
    torch.save(result, packed)
    write_whole(file, _seal(file, packed.getvalue()) + b"\n" + packed.getvalue())


def _seal(file: Path, content: bytes) -> bytes:
    return f"chunk {file.stem} sha256 {hashlib.sha256(content).hexdigest()}".encode()
