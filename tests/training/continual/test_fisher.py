from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.training.continual.stage import HEADS, SIZE, make_config, make_context, make_model
from training.config import Task
from training.continual.fisher import (
    Kind,
    draw_labels,
    estimate_fisher,
    estimate_importance,
    make_sample_losses,
    sampled_detection_loss,
)
from training.data.batches import Batch, BoxTargets
from training.detection.schemes import RawDetections, build_scheme
from training.hooks.context import StageContext

INPUTS = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0], [2.0, 0.5, -1.0]])


class Linear(nn.Module):
    """w . x + b with values that are known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
        self.bias = nn.Parameter(torch.tensor([0.25]))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs * self.weight).sum() + self.bias[0]


def logistic_losses(model: Linear, labels: list[float]) -> Iterator[Callable[[], Tensor]]:
    def loss_of(index: int) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(INPUTS[index]), torch.tensor(labels[index]))

    return (partial(loss_of, index) for index in range(len(labels)))


def test_logistic_regression_by_hand() -> None:
    model, labels = Linear(), [1.0, 0.0, 1.0]
    found = estimate_fisher(model, dict(model.named_parameters()), logistic_losses(model, labels))
    # The gradient of one sample is (p - y) x for the weights, p - y for the bias.
    residuals = torch.stack([model(x).sigmoid() for x in INPUTS]).detach() - torch.tensor(labels)
    weight = (residuals[:, None] * INPUTS).square().mean(dim=0)
    bias = residuals.square().mean()
    mean = (weight.sum() + bias) / 4
    torch.testing.assert_close(found["weight"], weight / mean)
    torch.testing.assert_close(found["bias"], (bias / mean)[None])


def test_it_is_not_the_square_of_the_mean_gradient() -> None:
    # Two samples that pull in opposite directions: their mean gradient is zero, each one's is not.
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    pulls = (partial(lambda y: F.mse_loss(model(torch.ones(1)), torch.tensor([y])), y) for y in (1.0, -1.0))
    found = estimate_fisher(model, dict(model.named_parameters()), pulls)
    assert found["weight"].item() == pytest.approx(1.0)


def test_the_mean_over_all_parameters_together_is_1() -> None:
    model = Linear()
    found = estimate_fisher(model, dict(model.named_parameters()), logistic_losses(model, [1.0, 0.0, 1.0]))
    assert torch.cat([value.ravel() for value in found.values()]).mean().item() == pytest.approx(1.0)
    assert found["bias"].item() != pytest.approx(1.0)


def test_the_scale_and_the_number_of_samples_do_not_change_it() -> None:
    model = Linear()
    once = estimate_fisher(model, dict(model.named_parameters()), logistic_losses(model, [1.0, 0.0, 1.0]))
    losses = [*logistic_losses(model, [1.0, 0.0, 1.0])] * 2
    louder = [partial(lambda loss: 7 * loss(), loss) for loss in losses]
    twice = estimate_fisher(model, dict(model.named_parameters()), louder)
    torch.testing.assert_close(twice, once)


def test_only_the_parameters_that_were_asked_for_are_weighed() -> None:
    model = Linear()
    found = estimate_fisher(model, {"bias": model.bias}, logistic_losses(model, [1.0]))
    assert list(found) == ["bias"]


def test_a_parameter_that_the_loss_does_not_read_is_not_important() -> None:
    model, idle = Linear(), nn.Parameter(torch.ones(2, 2))
    found = estimate_fisher(model, {"weight": model.weight, "idle": idle}, logistic_losses(model, [1.0]))
    assert torch.equal(found["idle"], torch.zeros(2, 2))
    assert found["weight"].any()


def test_where_nothing_pulls_nothing_is_important() -> None:
    model = Linear()
    found = estimate_fisher(model, {"weight": model.weight}, [lambda: 0 * model.weight.sum()])
    assert torch.equal(found["weight"], torch.zeros(3))


def test_no_sample_is_an_error() -> None:
    model = Linear()
    with pytest.raises(ValueError, match="at least one sample"):
        estimate_fisher(model, {"weight": model.weight}, [])


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training: bool) -> None:
    model = make_model(make_config()).train(training)
    bias = next(parameter for name, parameter in model.named_parameters() if name == "head.predict.bias")
    images = torch.randint(0, 256, (1, SIZE, SIZE, 3), dtype=torch.uint8)
    bias.grad = torch.ones_like(bias)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = []

    def loss() -> Tensor:
        modes.append(model.training)
        return model(images).classification.square().sum()  # type: ignore[no-any-return]  # Module call

    found = estimate_fisher(model, model.shared_parameters(), [loss, loss])
    assert modes == [False, False]
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(bias.grad, torch.ones_like(bias))
    assert all(parameter.grad is None for parameter in model.shared_parameters().values())
    assert found.keys() == model.shared_parameters().keys()
    assert all((value >= 0).all() for value in found.values())


def test_a_sample_that_fails_leaves_the_network_training() -> None:
    model = Linear().train()

    def fail() -> Tensor:
        raise OSError("a picture is damaged")

    with pytest.raises(OSError, match="damaged"):
        estimate_fisher(model, {"weight": model.weight}, [fail])
    assert model.training


class Softmax(nn.Module):
    """Three numbers to the logits of four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.7 * torch.randn(4, 3, generator=torch.manual_seed(3)))

    def forward(self, images: Tensor) -> Tensor:
        return images @ self.weight.T


def weigh(kind: Kind, *, repeats: int = 1, labels: tuple[int, ...] = (0, 1, 2)) -> Tensor:
    """Fisher information of the softmax regression on the three inputs."""
    model, rng = Softmax(), np.random.default_rng(0)
    batches = [Batch(INPUTS[[i]], torch.tensor([labels[i]]), torch.tensor([i])) for i in range(3)]
    losses = (
        loss
        for batch in batches * repeats
        for loss in make_sample_losses(
            kind,
            batch,
            model,
            lambda logits, asked: F.cross_entropy(logits, asked.targets),  # type: ignore[arg-type]  # class ids
            build_scheme(make_config()),
            rng,
            num_classes=4,
        )
    )
    return estimate_fisher(model, {"weight": model.weight}, losses)["weight"]


def test_exact_information_of_a_softmax_regression_by_hand() -> None:
    # The gradient of the row of class c is (p_c - [c = y]) x; its square's expectation over y is p_c (1 - p_c) x^2.
    probs = Softmax()(INPUTS).softmax(dim=1)
    wanted = torch.stack([(p * (1 - p))[:, None] * x.square() for p, x in zip(probs, INPUTS, strict=True)]).mean(dim=0)
    torch.testing.assert_close(weigh("exact"), (wanted / wanted.mean()).detach())


def test_sampled_information_is_the_exact_one_in_expectation() -> None:
    torch.testing.assert_close(weigh("sampled", repeats=500), weigh("exact"), rtol=0.15, atol=0.05)
    assert not torch.allclose(weigh("empirical"), weigh("exact"), rtol=0.15, atol=0.05)


def test_only_empirical_information_reads_the_labels() -> None:
    assert torch.equal(weigh("exact", labels=(3, 3, 3)), weigh("exact"))
    assert torch.equal(weigh("sampled", labels=(3, 3, 3)), weigh("sampled"))
    residuals = Softmax()(INPUTS).softmax(dim=1) - torch.eye(4)[:3]
    wanted = torch.stack([r[:, None] ** 2 * x**2 for r, x in zip(residuals, INPUTS, strict=True)]).mean(dim=0)
    torch.testing.assert_close(weigh("empirical"), (wanted / wanted.mean()).detach())


def test_classes_are_drawn_as_often_as_the_network_says_and_void_stays() -> None:
    probs = torch.tensor([0.1, 0.6, 0.3])
    masks = torch.zeros(1, 100, 100, dtype=torch.long)
    masks[0, :10] = 255
    drawn = draw_labels(probs.log().view(1, 3, 1, 1), masks, np.random.default_rng(0))
    assert (drawn[0, :10] == 255).all()
    shares = torch.bincount(drawn[0, 10:].flatten(), minlength=3) / 9000
    torch.testing.assert_close(shares, probs, atol=0.02, rtol=0)


def test_cells_are_drawn_at_the_size_of_the_mask_each_from_its_own_logits() -> None:
    logits = torch.full((1, 2, 1, 2), -50.0)
    logits[0, 0, 0, 0] = logits[0, 1, 0, 1] = 50.0
    drawn = draw_labels(logits, torch.zeros(1, 4, 8, dtype=torch.long), np.random.default_rng(0))
    assert drawn.shape == (1, 4, 8)
    assert (drawn[..., :3] == 0).all()
    assert (drawn[..., 5:] == 1).all()


def test_detections_are_drawn_from_the_network() -> None:
    # The score's pull on its logit is p - y: over many points, each value as often as the Bernoulli says.
    score = nn.Parameter(torch.full((1, 20000, 1), 0.25).logit())
    boxes = nn.Parameter(torch.zeros(1, 20000, 4))
    loss = sampled_detection_loss(RawDetections(score, None, boxes), np.random.default_rng(0))
    by_score, by_box = torch.autograd.grad(loss, [score, boxes])
    there = by_score.flatten() < 0
    torch.testing.assert_close(by_score.flatten()[there], torch.full((int(there.sum()),), -0.75))
    torch.testing.assert_close(by_score.flatten()[~there], torch.full((int((~there).sum()),), 0.25))
    assert there.float().mean().item() == pytest.approx(0.25, abs=0.02)
    # A box is pulled only where an object was drawn, there by noise of one stride.
    assert not by_box[0, ~there].any()
    assert by_box[0, there].std().item() == pytest.approx(1, abs=0.03)
    assert by_box[0, there].mean().item() == pytest.approx(0, abs=0.03)


def test_the_class_of_a_cell_is_drawn_only_where_there_is_an_object() -> None:
    objectness = torch.tensor([50.0, -50.0]).view(1, 2, 1)
    classes = nn.Parameter(torch.zeros(1, 2, 3))
    found = RawDetections(objectness, classes, torch.zeros(1, 2, 4))
    (pull,) = torch.autograd.grad(sampled_detection_loss(found, np.random.default_rng(0)), [classes])
    assert sorted(pull[0, 0].tolist()) == pytest.approx([-2 / 3, 1 / 3, 1 / 3])
    assert not pull[0, 1].any()


def test_a_picture_with_many_boxes_counts_for_more_than_one_with_few() -> None:
    # The loss of each picture is the same mean over its boxes; information adds up over them.
    weight = nn.Parameter(torch.ones(1))
    gradients = []
    for boxes in (0, 1, 5):
        batch = Batch(
            torch.zeros(1, SIZE, SIZE, 3), (BoxTargets(torch.zeros(boxes, 4), torch.zeros(boxes)),), torch.tensor([0])
        )
        (loss,) = make_sample_losses(
            "empirical",
            batch,
            lambda _: weight,
            lambda logits, _: logits.sum(),
            build_scheme(make_config()),
            np.random.default_rng(0),
            num_classes=2,
        )
        gradients.append(torch.autograd.grad(loss(), weight)[0].item())
    assert gradients == [1, 1, 5]


def at_the_end_of(task: Task, head: str) -> StageContext:
    context = make_context(make_config(head=head))
    stage = next(stage for stage in context.config.stages if stage.task is task)
    return replace(context, stage=stage)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", ["empirical", "sampled"])
@pytest.mark.parametrize("task", Task)
def test_every_shared_weight_of_the_real_network_is_weighed(task: Task, kind: Kind, head: str) -> None:
    context = at_the_end_of(task, head)
    found = estimate_importance(context, kind)
    assert found.keys() == context.model.shared_parameters().keys()
    values = torch.cat([value.flatten() for value in found.values()])
    assert values.mean().item() == pytest.approx(1, rel=1e-4)
    assert torch.isfinite(values).all()
    assert (values >= 0).all()
    assert context.model.training


def test_the_seed_decides_what_is_sampled() -> None:
    context = at_the_end_of(Task.SEGMENTATION, "unified")
    other = replace(context, config=context.config.model_copy(update={"seed": 1}))
    once, again, otherwise = (estimate_importance(each, "sampled") for each in (context, context, other))
    assert all(torch.equal(value, again[name]) for name, value in once.items())
    assert not all(torch.equal(value, otherwise[name]) for name, value in once.items())


def test_exact_information_is_for_classification_alone() -> None:
    estimate_importance(at_the_end_of(Task.CLASSIFICATION, "unified"), "exact")
    with pytest.raises(ValueError, match="is for classification, not detection"):
        estimate_importance(at_the_end_of(Task.DETECTION, "unified"), "exact")
