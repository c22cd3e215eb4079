"""The laboratory's modules, in a browser, compute what `helpers` compute, and refuse what they refuse."""

from __future__ import annotations

import pytest
import torch

from helpers import (
    NotAMinimum,
    NotConverged,
    NotStationary,
    actual_change,
    agreement,
    certify,
    cholesky_solve,
    influence,
    leave_one_out,
    minimise,
    predicted_change,
)
from helpers.curvature import cholesky_factor
from tests.laboratory.scenes import degenerate_scenes, examples, random_scenes, the_ring
from tools import laboratory

RING = the_ring()
RANDOM = random_scenes()
DEGENERATE = degenerate_scenes()
SCENES = [RING, *RANDOM, *DEGENERATE]
CONVENTIONS = ("zero", "mean")


def by_name(scenes):
    return pytest.mark.parametrize("scene", scenes, ids=lambda scene: scene.name)


def close(mine, theirs, rtol):
    """To ``rtol`` of the largest entry."""
    mine, theirs = torch.as_tensor(mine), torch.as_tensor(theirs)
    assert mine.shape == theirs.shape
    assert float((mine - theirs).abs().max()) <= rtol * float(theirs.abs().max().clamp(min=1e-12))


def trained(lab, scene):
    """Where the laboratory ends, if `helpers` certify it as well; else both refuse, and None. Once for each scene."""
    if scene not in lab.trained:
        lab.trained[scene] = certified(lab, scene)
    return lab.trained[scene]


def certified(lab, scene):
    found = lab.minimise(scene.problem, scene.model[1])
    theta = torch.tensor(found["theta"])
    try:
        certify(scene.risk, theta, scene.weights)
    except (NotStationary, NotAMinimum):
        assert found["verdict"] != "minimum"
        return None
    assert found["verdict"] == "minimum"
    return theta


# ------------------------------------------------------------------------------------------------- what it starts with


def test_ring_is_written_from_helpers():
    assert (laboratory.LAB / "ring.js").read_text(encoding="utf-8") == laboratory.ring()


def test_the_first_scene_is_the_books_problem(lab):
    scene = lab.ring()
    for mine, theirs in ((scene["points"], RING.train), (scene["tests"], RING.test)):
        assert [{"x": z["x"], "y": z["y"]} for z in mine] == examples(theirs)  # to the last bit
    assert (scene["hidden"], scene["seed"], scene["l2"]) == (RING.hidden, RING.seed, RING.l2)
    assert all(z["m"] == 1 for z in scene["points"])


@pytest.mark.parametrize("hidden", range(13))
def test_the_initial_parameters_are_pytorchs(lab, hidden):
    for seed in (0, 1, 42, 9999):
        assert lab.initial(hidden, seed) == RING.but(hidden=hidden, seed=seed).model[1].tolist()  # to the last bit


# ------------------------------------------------------------------------------------------------- at any parameters


@by_name(SCENES)
def test_risk_gradient_and_hessian(lab, scene):
    theta = 1.5 * scene.model[1]
    found = lab.derivatives(scene.problem, theta)
    close(found["value"], scene.risk(theta, scene.weights), 1e-13)
    close(found["gradient"], scene.risk.gradient(theta, scene.weights), 1e-13)
    H = scene.risk.hessian(theta, scene.weights)
    close(torch.tensor(found["hessian"]).view_as(H), H, 1e-13)


@by_name(SCENES)
def test_losses_and_their_gradients(lab, scene):
    theta = 1.5 * scene.model[1]
    close(lab.losses(theta, examples(scene.test)), scene.risk.losses(theta, scene.test), 1e-13)
    close(lab.gradients(theta, examples(scene.train)), scene.risk.gradients(theta), 1e-13)


@by_name(SCENES)
def test_spectrum(lab, scene):
    H = scene.risk.hessian(1.5 * scene.model[1], scene.weights)
    found = lab.eigh(H.flatten(), len(H))
    d, Q = torch.tensor(found["d"]), torch.tensor(found["Q"])
    close(d, torch.linalg.eigvalsh(H), 1e-13)
    close(Q @ Q.T, torch.eye(len(H)), 1e-13)
    close(Q.T @ torch.diag(d) @ Q, H, 1e-13)


def test_cholesky_refuses_what_helpers_refuse(lab):
    A = torch.tensor([[4.0, 2.0], [2.0, 3.0]])
    close(torch.tensor(lab.cholesky(A.flatten(), 2)).view(2, 2), cholesky_factor(A), 1e-15)
    for last in (1.0, 1.0 + 1e-15, 0.5):  # singular, by rounding not, indefinite
        A[1, 1] = last
        assert lab.cholesky(A.flatten(), 2) is None
        with pytest.raises(ValueError, match="not positive definite"):
            cholesky_factor(A)


# --------------------------------------------------------------------------------------------------------- at a minimum


@by_name(SCENES)
def test_a_minimum_is_certified_or_refused_by_both(lab, scene):
    theta = trained(lab, scene)
    if theta is None:
        with pytest.raises((NotConverged, NotAMinimum)):
            minimise(scene.risk, scene.model[1], scene.weights)


def test_both_refuse_at_a_saddle(lab):
    """Hidden units without weight stay so: at λ = 0.02 the collapsed network is stationary, and a saddle."""
    theta = torch.zeros(33)
    theta[-1] = torch.tensor(lab.minimise(RING.but(l2=0.2).problem, RING.model[1])["theta"])[-1]
    found = lab.minimise(RING.problem, theta)
    assert found["verdict"] == "saddle"
    with pytest.raises(NotAMinimum):
        certify(RING.risk, torch.tensor(found["theta"]))


def test_the_ring_has_one_minimum_and_both_find_it(lab):
    """Up to the order and the signs of the hidden units."""
    ours, theirs = trained(lab, RING), minimise(RING.risk, RING.model[1]).theta
    for value in (lambda theta: RING.risk(theta), lambda theta: RING.risk.losses(theta, RING.test)):
        close(value(ours), value(theirs), 1e-12)
    close(influence(RING.risk, ours, RING.test), influence(RING.risk, theirs, RING.test), 1e-9)


def test_the_brink_is_that_of_the_chapter(lab):
    """The chapter trains from seed 42, by another optimiser; the laboratory comes to the same minimum from seed 6."""
    brink = next(scene for scene in DEGENERATE if scene.name == "on the brink")
    theirs = minimise(brink.risk, RING.model[1]).theta
    ours = trained(lab, brink)
    close(brink.risk(ours), brink.risk(theirs), 1e-12)
    close(influence(brink.risk, ours, brink.test), influence(brink.risk, theirs, brink.test), 1e-8)


@by_name(SCENES)
def test_influences(lab, scene):
    theta = trained(lab, scene)
    if theta is None:
        return
    found = lab.influence(scene.problem, theta, examples(scene.test), 0)
    theirs = influence(scene.risk, theta, scene.test, weights=scene.weights)
    close(found, theirs, 1e-10)
    H = scene.risk.hessian(theta, scene.weights) + 0.01 * torch.eye(len(theta))
    damped = -scene.risk.gradients(theta, scene.test) @ cholesky_solve(H, scene.risk.gradients(theta).T)
    close(lab.influence(scene.problem, theta, examples(scene.test), 0.01), damped, 1e-10)
    for convention in CONVENTIONS:
        close(
            lab.predicted(found, scene.weights, convention), predicted_change(theirs, convention, scene.weights), 1e-10
        )


def retrained(lab, scene, convention):
    """The changes of the test losses by both, (n_test, n), and for which points both found the same model."""
    theta = trained(lab, scene)
    if theta is None:
        return None
    found = lab.changes(scene.problem, theta, convention, examples(scene.test))
    mine, thetas = torch.tensor(found["changes"]), torch.tensor(found["thetas"])
    theirs = leave_one_out(scene.risk, theta, convention=convention, weights=scene.weights, throw=False)
    same = (thetas - theirs.thetas).norm(dim=1) <= 1e-6 * (1 + theta.norm())
    return mine, actual_change(scene.risk, theta, theirs, scene.test), same, thetas, theirs


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_sixty_retrainings_of_the_ring(lab, convention):
    mine, theirs, same, _, _ = retrained(lab, RING, convention)
    assert same.all()
    assert float((mine - theirs).abs().max()) <= 1e-8
    found = lab.agreement(mine[0], theirs[0])
    ours = agreement(mine[0], theirs[0])
    mine, theirs = [found[key] for key in ("r", "slope", "intercept", "largest")], list(vars(ours).values())
    close(mine, theirs, 1e-12)


@by_name([*RANDOM, *DEGENERATE])
def test_retrainings(lab, scene):
    """Where both come to the same model, the changes agree. Where not, both are minima, or one refuses a saddle."""
    for convention in CONVENTIONS:
        found = retrained(lab, scene, convention)
        if found is None:
            return
        mine, theirs, same, thetas, minima = found
        assert same.sum() >= 0.9 * len(same), f"{int(same.sum())} of {len(same)} ended in the same minimum"
        certified = ~mine[0].isnan()
        assert (certified == minima.certified)[same].all()
        difference = (mine - theirs)[:, same & certified]
        assert not difference.numel() or float(difference.abs().max()) <= 1e-8
        n, w = scene.risk.n, scene.weights
        for i in (~same & certified).nonzero().flatten().tolist():
            left = w.clone()
            left[i] = 0
            certify(scene.risk, thetas[i], left * (w.sum() / left.sum() if convention == "mean" else 1))
        assert n == len(same)


# ------------------------------------------------------------------------------------------------------------- the jobs


def on_a_leash(scene, theta_hat, w, delta):
    """The minimum of R + δ/2 ‖θ − θ̂‖² near θ̂, by Newton's method."""
    theta = theta_hat
    for _ in range(8):
        gradient = scene.risk.gradient(theta, w) + delta * (theta - theta_hat)
        stiffness = scene.risk.hessian(theta, w) + delta * torch.eye(len(theta))
        theta = theta - torch.linalg.solve(stiffness, gradient)
    return theta


def test_retraining_on_a_leash(lab):
    theta, delta = trained(lab, RING), 0.05
    ends = lab.retrainings(RING.problem, theta, "mean", delta)
    for i in (0, 14, 31, 48):
        w = RING.weights.clone()
        w[i] = 0
        w *= 1 / w.sum()
        close(ends[i]["theta"], on_a_leash(RING, theta, w, delta), 1e-9)


def along(scene, i, convention="mean"):
    return {"data": examples(scene.train), "l2": scene.l2, "ms": [1.0] * scene.risk.n, "i": i, "convention": convention}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_following_a_weight(lab, convention):
    theta = trained(lab, RING)
    way = lab.follow(along(RING, 31, convention), theta, 1, [0.5, 0, 2])
    for stop in way:
        w = torch.full((60,), 1 / 60)
        w[31] *= stop["m"]
        if convention == "mean":
            w /= w.sum()
        close(stop["theta"], minimise(RING.risk, theta, w).theta, 1e-8)
        assert not stop["broken"]


def test_the_way_is_broken_at_the_fold(lab):
    """The chapter finds the fold where 4.0 to 5.0 % of point 31 are gone, that is at m = 59 (1 − a) / (59 + a)."""
    brink = RING.but(l2=0.01, seed=6)
    way = lab.follow(along(brink, 31), trained(lab, brink), 1, [0.98, 0.965, 0.94, 0.9])
    assert [stop["broken"] for stop in way] == [False, False, True, False]
    line = lab.branch(along(brink, 31), trained(lab, brink))
    turn = max(range(len(line)), key=lambda k: line[k]["a"])
    assert 0.04 < line[turn]["a"] < 0.05
    stationary_until(brink, line, turn)


def test_the_branch_of_the_other_minimum_ends_at_a_fold_as_well(lab):
    """Over the first fold lies another minimum; with two to three times the weight, it is gone in turn."""
    brink = RING.but(l2=0.01, seed=6)
    other = lab.follow(along(brink, 31), trained(lab, brink), 1, [0.9, 1])[1]["theta"]
    line = lab.branch(along(brink, 31), other, 3)
    turn = max(range(len(line)), key=lambda k: line[k]["a"])
    stationary_until(brink, line, turn)
    before, after = line[turn]["m"] - 0.02, line[turn]["m"] + 0.02
    assert [stop["broken"] for stop in lab.follow(along(brink, 31), other, 1, [2, before, after])] == [
        False,
        False,
        True,
    ]


def stationary_until(scene, line, turn):
    """All stops are stationary: minima before the turn, saddles after it."""
    assert 3 < turn < len(line) - 3
    for k, stop in list(enumerate(line))[:: len(line) // 8]:
        w = torch.full((60,), 1 / (59 + stop["m"]))
        w[31] *= stop["m"]
        theta = torch.tensor(stop["theta"])
        assert float(scene.risk.gradient(theta, w).norm()) < 1e-9
        lowest = torch.linalg.eigvalsh(scene.risk.hessian(theta, w))[0]
        assert stop["stable"] == bool(lowest > 0)
        if abs(k - turn) > 1:
            assert stop["stable"] == (k < turn)


def test_the_slope_that_is_lifted(lab):
    """On the straight way from one minimum to the other it is zero at both ends, one with each weights."""
    theta = trained(lab, RING)
    found = lab.section(along(RING, 14), theta, 1, 0)
    w = torch.full((60,), 1 / 59)
    w[14] = 0
    G, H = RING.risk.gradients(theta), RING.risk.hessian(theta)
    way = minimise(RING.risk, theta, w).theta - theta
    q = way / way.norm()
    close(found["length"], way.norm(), 1e-8)
    close(found["predicted"], -q @ cholesky_solve(H, G.T @ (w - RING.weights)), 1e-8)
    close(found["stiffness"], q @ H @ q, 1e-8)
    for key, weights in (("before", RING.weights), ("after", w)):
        slopes = [q @ RING.risk.gradient(theta + s * q, weights) for s in found["at"]]
        close(found[key], torch.stack(slopes), 1e-7)
    assert abs(found["before"][15]) < 1e-12
    assert abs(found["after"][45]) < 1e-12
