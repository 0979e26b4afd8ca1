import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from training.config import ConfigError, StageConfig, load_config
from training.continual.balancing import Balancer, build_balancer
from training.continual.surgery import Surgery
from training.continual.weighing import GradNormWeights, UncertaintyWeights, Weights
from training.data.taxonomy import MINI
from training.models.multitask import MultiTaskModel, build_model

NAMES = ["task", "ewc", "distillation"]


class Toy(nn.Module):
    """A shared layer, and a layer for each of three losses."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 6)
        self.branches = nn.ModuleDict({name: nn.Linear(6, 2) for name in NAMES})

    def losses(self, step: int, names: list[str] = NAMES) -> dict[str, Tensor]:
        inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        seen = self.shared(inputs).tanh()
        # Far apart in size, so that weights have something to do.
        return {name: 10 ** (2 - index) * self.branches[name](seen).square().mean() for index, name in enumerate(names)}


def make_toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


def make_balancer(toy: Toy, weights: Weights | None = None, surgery: Surgery | None = None) -> Balancer:
    return Balancer(
        weights or Weights(),
        surgery,
        shared=list(toy.shared.parameters()),
        others=list(toy.branches.parameters()),
    )


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None}


def pull(weight: nn.Parameter, *directions: list[float]) -> dict[str, Tensor]:
    """Losses with these gradients."""
    return {f"loss{index}": weight @ torch.tensor(direction) for index, direction in enumerate(directions)}


def apply_surgery(surgery: Surgery, *directions: list[float]) -> list[float]:
    weight = nn.Parameter(torch.zeros(2))
    Balancer(Weights(), surgery, shared=[weight]).backward(pull(weight, *directions))
    assert weight.grad is not None
    return weight.grad.tolist()


def make_stage(**changes: object) -> StageConfig:
    return StageConfig.model_validate({"task": "detection", "epochs": 1, **changes})


def make_model(**changes: object) -> MultiTaskModel:
    torch.manual_seed(0)
    return build_model(load_config("tiny").model.model_copy(update=changes), MINI.num_classes)


def test_fixed_weights_give_the_gradient_of_the_plain_sum_to_the_bit() -> None:
    plain, balanced = make_toy(), make_toy()
    losses = plain.losses(0)
    total = losses["task"] + losses["ewc"] + losses["distillation"]
    total.backward()  # type: ignore[no-untyped-call]  # torch's, untyped
    assert make_balancer(balanced).backward(balanced.losses(0)) == total.item()
    expected, found = gradients(plain), gradients(balanced)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_log_variance_of_a_constant_loss_approaches_the_log_of_the_loss() -> None:
    constant = {"task": torch.tensor(5.0), "ewc": torch.tensor(0.3)}
    weights = UncertaintyWeights(NAMES)
    for _ in range(1000):
        weights.weigh(constant)
    found = weights.weigh(constant)
    assert -math.log(found["task"]) == pytest.approx(math.log(5), abs=0.01)
    assert -math.log(found["ewc"]) == pytest.approx(math.log(0.3), abs=0.01)
    assert weights.state_dict()["values"]["distillation"] == 0


def test_uncertainty_begins_with_the_plain_sum() -> None:
    assert UncertaintyWeights(NAMES).weigh({"task": torch.tensor(7.0)}) == {"task": 1.0}


def test_a_loss_of_zero_gets_no_boundless_weight() -> None:
    weights = UncertaintyWeights(["ewc"])
    for _ in range(400):
        weights.weigh({"ewc": torch.tensor(0.0)})
    assert weights.weigh({"ewc": torch.tensor(0.0)})["ewc"] == pytest.approx(math.exp(5))


def test_the_gradient_of_a_weighted_loss_is_the_weight_times_the_gradient() -> None:
    weight = nn.Parameter(torch.zeros(2))
    weights = UncertaintyWeights(["loss0", "loss1"])
    weights.load_state_dict(weights.state_dict() | {"values": {"loss0": math.log(4), "loss1": math.log(0.5)}})
    assert Balancer(weights).backward({"loss0": weight[0] + 8, "loss1": weight[1] + 3}) == pytest.approx(8 / 4 + 3 * 2)
    assert weight.grad is not None
    assert weight.grad.tolist() == pytest.approx([0.25, 2.0])


def test_gradnorm_takes_weight_from_the_loss_that_dominates() -> None:
    weight = nn.Parameter(torch.ones(2))
    weights = GradNormWeights(["loss0", "loss1"], [weight])
    for _ in range(200):
        found = weights.weigh(pull(weight, [9.0, 0.0], [0.0, 1.0]))
        assert sum(weights.state_dict()["values"].values()) == pytest.approx(2)
    # Both are where they began, so their gradients become equal: 9 * 0.2 = 1 * 1.8.
    assert found["loss0"] == pytest.approx(0.2, abs=0.05)
    assert found["loss1"] == pytest.approx(1.8, abs=0.05)


def test_gradnorm_gives_weight_to_the_loss_that_has_fallen_less() -> None:
    weight = nn.Parameter(torch.ones(2))
    weights = GradNormWeights(["fast", "slow"], [weight], alpha=1.0)
    weights.weigh({"fast": weight[0] * 1.0, "slow": weight[1] * 1.0})
    for _ in range(200):
        # The same gradients; 0.25 and 0.75 of the first loss are left.
        found = weights.weigh({"fast": weight[0] - 0.75, "slow": weight[1] - 0.25})
    # The wanted norms are as 0.25 to 0.75, and the weights add up to 2.
    assert found["fast"] == pytest.approx(0.5, abs=0.05)
    assert found["slow"] == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize("slope", [1.0, 3.0])  # its gradient is too small, and too large, for one that has not fallen
def test_a_loss_that_grows_counts_as_one_that_has_not_fallen(slope: float) -> None:
    weight = nn.Parameter(torch.ones(1))
    values = []
    for first in (0.0, 2.0, 5.0):  # and in the second step it is 5
        weights = GradNormWeights(["task", "ewc"], [weight])
        weights.weigh({"task": weight.sum(), "ewc": 0 * weight.sum() + first})
        weights.weigh({"task": weight.sum() / 2, "ewc": slope * weight.sum() + 5 - slope})
        values.append(weights.state_dict()["values"])
    assert values[0] == values[1] == values[2]


def test_weights_stay_positive_and_add_up_however_large_a_loss_is() -> None:
    weight = nn.Parameter(torch.ones(2))
    weights = GradNormWeights(["loss0", "loss1"], [weight])
    for _ in range(100):
        weights.weigh(pull(weight, [1e6, 0.0], [0.0, 1.0]))
    values = weights.state_dict()["values"]
    assert min(values.values()) > 0
    assert sum(values.values()) == pytest.approx(2)


def test_pcgrad_takes_out_of_each_gradient_what_works_against_the_other() -> None:
    # g0 = (1, 0), g1 = (-1, 1): g0 . g1 = -1.  g0 + g1 / 2 = (0.5, 0.5);  g1 + g0 = (0, 1).
    assert apply_surgery(Surgery(), [1.0, 0.0], [-1.0, 1.0]) == pytest.approx([0.5, 1.5])


def test_pcgrad_leaves_gradients_that_agree() -> None:
    assert apply_surgery(Surgery(), [1.0, 0.0], [1.0, 1.0]) == pytest.approx([2.0, 1.0])


def test_gradvac_is_pcgrad_in_its_first_step() -> None:
    assert apply_surgery(Surgery(0.5), [1.0, 0.0], [-1.0, 1.0]) == pytest.approx([0.5, 1.5])


def test_gradvac_turns_gradients_until_their_cosine_is_the_usual_one() -> None:
    surgery = Surgery(0.5)
    assert apply_surgery(surgery, [1.0, 0.0], [2.0, 0.0]) == pytest.approx([3.0, 0.0])
    # The average cosine is 0.5 now. At right angles, each gets the other times 0.5 / sqrt(0.75).
    tilt = 1 / math.sqrt(3)
    assert apply_surgery(surgery, [1.0, 0.0], [0.0, 1.0]) == pytest.approx([1 + tilt, 1 + tilt])
    # And 0.25, the cosine being 0: now 0.25 / sqrt(1 - 0.25^2).
    tilt = 0.25 / math.sqrt(0.9375)
    assert apply_surgery(surgery, [1.0, 0.0], [0.0, 1.0]) == pytest.approx([1 + tilt, 1 + tilt])


def test_gradvac_leaves_gradients_that_agree_more_than_usual() -> None:
    surgery = Surgery(0.5)
    apply_surgery(surgery, [1.0, 0.0], [1.0, 2.0])
    assert apply_surgery(surgery, [1.0, 0.0], [1.0, 1.0]) == pytest.approx([2.0, 1.0])


def test_gradvac_stays_finite_after_gradients_that_always_were_the_same() -> None:
    surgery = Surgery(0.5)
    for _ in range(100):
        apply_surgery(surgery, [1.0, 0.0], [1.0, 0.0])
    assert all(abs(part) < 20 for part in apply_surgery(surgery, [1.0, 0.0], [0.0, 1.0]))


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_loss_without_gradient_changes_nothing(momentum: float) -> None:
    surgery = Surgery(momentum)
    apply_surgery(surgery, [1.0, 0.0], [2.0, 1.0], [1.0, 1.0])
    alone = copy.deepcopy(surgery)
    expected = apply_surgery(alone, [1.0, 0.0], [-2.0, 1.0])
    assert apply_surgery(surgery, [1.0, 0.0], [-2.0, 1.0], [0.0, 0.0]) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["PCGrad", "GradVac"])
@pytest.mark.parametrize("directions", [[[1.0, 0.2], [-1.0, 1.0]], [[3.0, 1.0], [1.0, 1.0]]])
def test_two_losses_are_operated_on_as_torchjd_does(name: str, directions: list[list[float]]) -> None:
    aggregation = pytest.importorskip("torchjd.aggregation", reason="torchjd is only here to compare with")
    oracle = getattr(aggregation, name)()
    surgery = Surgery(0.5 if name == "GradVac" else 0.0)
    # Three steps: GradVac's averages are those of torchjd too.
    for sign in (1.0, -1.0, 0.5):
        step = [directions[0], [sign * value for value in directions[1]]]
        # With three or more the order would matter, which each draws in its own way.
        assert apply_surgery(surgery, *step) == pytest.approx(oracle(torch.tensor(step)).tolist(), abs=1e-5)


def test_three_losses_are_operated_on_as_torchjd_does_in_one_of_the_orders() -> None:
    aggregation = pytest.importorskip("torchjd.aggregation", reason="torchjd is only here to compare with")
    step = [[1.0, 0.0], [-1.0, 0.7], [-0.5, -1.0]]
    found, oracle = apply_surgery(Surgery(), *step), aggregation.PCGrad()
    drawn = []
    for seed in range(60):  # there are 2 ** 3 orders
        torch.manual_seed(seed)
        drawn.append(oracle(torch.tensor(step)).tolist())
    assert len({tuple(result) for result in drawn}) > 1
    assert any(result == pytest.approx(found, abs=1e-6) for result in drawn)


def test_surgery_is_for_shared_parameters_and_others_get_the_plain_sum() -> None:
    shared, own = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    untouched = nn.Parameter(torch.zeros(2))
    losses = {
        name: (shared + own) @ torch.tensor(direction)
        for name, direction in (("task", [1.0, 0.0]), ("ewc", [-1.0, 1.0]))
    }
    Balancer(Weights(), Surgery(), shared=[shared], others=[own, untouched]).backward(losses)
    assert shared.grad is not None
    assert own.grad is not None
    assert shared.grad.tolist() == pytest.approx([0.5, 1.5])
    assert own.grad.tolist() == [0.0, 1.0]
    assert untouched.grad is None


def test_surgery_where_nothing_conflicts_is_the_plain_sum() -> None:
    plain, operated = make_toy(), make_toy()
    for toy, surgery in ((plain, None), (operated, Surgery())):
        losses = toy.losses(0, ["task"])
        losses["ewc"] = 2 * losses["task"]
        make_balancer(toy, surgery=surgery).backward(losses)
    expected, found = gradients(plain), gradients(operated)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


def test_surgery_sees_weighted_gradients() -> None:
    weight = nn.Parameter(torch.zeros(2))
    weights = UncertaintyWeights(["loss0", "loss1"])
    weights.load_state_dict(weights.state_dict() | {"values": {"loss0": math.log(0.5), "loss1": math.log(2)}})
    Balancer(weights, Surgery(), shared=[weight]).backward(pull(weight, [1.0, 0.0], [-1.0, 1.0]))
    # PCGrad on (2, 0) and (-0.5, 0.5): (2, 0) + 2 * (-0.5, 0.5) and (-0.5, 0.5) + 0.25 * (2, 0).
    assert weight.grad is not None
    assert weight.grad.tolist() == pytest.approx([1.0, 1.5])


def test_a_loss_that_nothing_can_change_is_counted_and_not_operated_on() -> None:
    weight = nn.Parameter(torch.zeros(2))
    balancer = Balancer(GradNormWeights(["loss0", "ewc"], [weight]), Surgery(), shared=[weight])
    assert balancer.backward({**pull(weight, [1.0, 0.0]), "ewc": torch.tensor(3.0)}) == 3.0
    assert weight.grad is not None
    assert weight.grad.tolist() == [1.0, 0.0]


MAKERS: dict[str, Callable[[Toy], Balancer]] = {
    "fixed": make_balancer,
    "uncertainty": lambda toy: make_balancer(toy, UncertaintyWeights(NAMES)),
    "gradnorm": lambda toy: make_balancer(toy, GradNormWeights(NAMES, list(toy.shared.parameters()))),
    "pcgrad": lambda toy: make_balancer(toy, surgery=Surgery()),
    "gradvac, weighed": lambda toy: make_balancer(toy, UncertaintyWeights(NAMES), Surgery(0.1)),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_run_that_was_killed_goes_on_to_the_bit(kind: str) -> None:
    def train(toy: Toy, balancer: Balancer, steps: range) -> list[float]:
        told = []
        for step in steps:
            toy.zero_grad()
            names = NAMES[:2] if step % 3 == 0 else NAMES
            told.append(balancer.backward(toy.losses(step, names)))
            with torch.no_grad():
                for parameter in toy.parameters():
                    if parameter.grad is not None:
                        parameter.sub_(0.01 * parameter.grad)
        return told

    whole = make_toy()
    expected = train(whole, MAKERS[kind](whole), range(12))
    first, second = make_toy(), make_toy()
    balancer = MAKERS[kind](first)
    told = train(first, balancer, range(5))
    second.load_state_dict(first.state_dict())
    resumed = MAKERS[kind](second)
    resumed.load_state_dict(copy.deepcopy(balancer.state_dict()))
    torch.manual_seed(123)  # what the global generator does is of no account
    assert told + train(second, resumed, range(5, 12)) == expected
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("balance", ["fixed", "uncertainty", "gradnorm"])
@pytest.mark.parametrize("surgery", ["none", "pcgrad", "gradvac"])
def test_every_choice_of_a_stage_reaches_the_weights_that_learn(balance: str, surgery: str) -> None:
    model = make_model()
    balancer = build_balancer(make_stage(balance=balance, surgery=surgery), model, ["task", "ewc"])
    logits = model(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
    balancer.backward({"task": logits.detection.square().mean(), "ewc": logits.segmentation.square().mean()})
    assert set(model.shared_parameters()) <= gradients(model).keys()
    assert {"head.predict.weight", "head.predict.bias"} <= gradients(model).keys()


def test_only_gradvac_remembers_how_gradients_stood_to_each_other() -> None:
    model = make_model()
    usual = {}
    for surgery in ("pcgrad", "gradvac"):
        balancer = build_balancer(make_stage(surgery=surgery), model, ["task", "ewc"])
        loss = model(torch.zeros(2, 64, 64, 3, dtype=torch.uint8)).detection.square().mean()
        balancer.backward({"task": loss, "ewc": 2 * loss})
        usual[surgery] = balancer.state_dict()["surgery"]["cosines"]["task", "ewc"]
    assert usual == {"pcgrad": 0.0, "gradvac": pytest.approx(0.01)}


def test_gradnorm_looks_at_the_stem_of_the_unified_head_and_at_all_shared_weights_before_branches() -> None:
    unified, pyramid = make_model(), make_model(neck="fpn", head="branches")
    stage = make_stage(balance="gradnorm")
    weights = [build_balancer(stage, model, ["task"]).weights for model in (unified, pyramid)]
    assert all(isinstance(each, GradNormWeights) for each in weights)
    of_unified, of_pyramid = ([id(parameter) for parameter in each._parameters] for each in weights)  # type: ignore[attr-defined]  # asserted above
    assert isinstance(unified.head.stem, nn.Module)
    assert of_unified == [id(parameter) for parameter in unified.head.stem.parameters()]
    assert of_pyramid == [id(parameter) for parameter in pyramid.shared_parameters().values()]


def test_gradnorm_is_refused_where_nothing_shared_learns() -> None:
    model = make_model(neck="fpn", head="branches")
    model.begin_stage(frozen=["backbone", "neck"])
    with pytest.raises(ConfigError, match="none of them learns"):
        build_balancer(make_stage(balance="gradnorm"), model, ["task"])


def test_surgery_where_nothing_shared_learns_is_the_plain_sum() -> None:
    model = make_model(neck="fpn", head="branches")
    model.begin_stage(frozen=["backbone", "neck"])
    balancer = build_balancer(make_stage(surgery="pcgrad"), model, ["task"])
    logits = model(torch.zeros(2, 64, 64, 3, dtype=torch.uint8)).detection
    assert balancer.backward({"task": logits.square().mean()}) == logits.square().mean().item()
    assert gradients(model)
    assert all(name.startswith("head.detection.") for name in gradients(model))
