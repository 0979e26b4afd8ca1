import pytest
import torch
from torch import Tensor, nn

from training.continual.averaging import StageAveraging, WeightAverage


class One(nn.Module):
    """One weight and a counter, as batch-norm has one."""

    count: Tensor

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))
        self.register_buffer("count", torch.tensor(0))

    def move(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
            self.count += 1


def follow(average: WeightAverage, model: One, values: list[float]) -> float:
    for value in values:
        model.move(value)
        average.update()
    average.apply()
    return model.weight.item()


def test_the_decay_grows_with_the_steps_by_hand() -> None:
    model = One(0.0)
    # Decays 2/11 and 3/12: 9/11 of 11 is 9; 3/12 of 9 and 9/12 of 5 are 6.
    assert follow(WeightAverage(model, 0.99), model, [11.0, 5.0]) == pytest.approx(6.0)


def test_the_decay_grows_no_further_than_its_value() -> None:
    model = One(8.0)
    # Decay 2/11, then 1/5 twice.
    expected = 0.2 * (0.2 * (2 / 11 * 8 + 9 / 11 * 1) + 0.8 * 2) + 0.8 * 3
    assert follow(WeightAverage(model, 0.2), model, [1.0, 2.0, 3.0]) == pytest.approx(expected)


def test_a_counter_is_the_newest_and_weights_that_do_not_move_stay_to_the_bit() -> None:
    model = One(0.1)
    assert follow(WeightAverage(model, 0.99), model, [0.1] * 30) == torch.tensor(0.1).item()
    assert model.count.item() == 30


def test_an_average_that_is_resumed_goes_on_as_if_it_had_never_stopped() -> None:
    whole, stopped = One(0.0), One(0.0)
    first, expected = WeightAverage(stopped, 0.9), follow(WeightAverage(whole, 0.9), whole, [1.0, 2.0, 3.0])
    for value in (1.0, 2.0):
        stopped.move(value)
        first.update()
    second = WeightAverage(stopped, 0.9)
    second.load_state_dict(first.state_dict())
    assert follow(second, stopped, [3.0]) == expected


def test_until_it_is_applied_an_average_leaves_the_network_alone() -> None:
    model = One(0.0)
    average = WeightAverage(model, 0.9)
    model.move(4.0)
    average.update()
    assert model.weight.item() == 4.0


@pytest.mark.parametrize(("share", "expected"), [(0.0, 7.0), (0.5, 5.0), (0.25, 6.0), (1.0, 3.0)])
def test_after_the_stage_weights_go_their_share_of_the_way_back(share: float, expected: float) -> None:
    model, before = One(7.0), {"weight": torch.tensor([3.0]), "of_a_branch": torch.tensor([0.0])}
    StageAveraging(dict(model.named_parameters()), before, share).finish()
    assert model.weight.item() == pytest.approx(expected)
    assert before["weight"].item() == 3.0
