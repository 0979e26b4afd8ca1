import pytest
import torch
from torch import Tensor

from tests.training.there import there
from training.config import Task
from training.models.heads import BOX_ROWS, TaskLogits, UnifiedHead
from training.models.pyramid import Features, Pyramid

NUM_CLASSES = {Task.SEGMENTATION: 4, Task.DETECTION: 3, Task.CLASSIFICATION: 2}


def make_head() -> UnifiedHead:
    torch.manual_seed(0)
    return UnifiedHead(6, 5, NUM_CLASSES)


def as_features(level: Tensor) -> Features:
    """Features whose finer level and pyramid are noise that the head must not read."""
    noise = torch.full_like(level, 1e6)
    return Features(Pyramid(noise, noise, noise, noise), (noise, level))


def answer(head: UnifiedHead) -> TaskLogits:
    logits: TaskLogits = head(as_features(torch.randn(2, 6, 3, 4, generator=torch.manual_seed(1))))
    return logits


def test_the_rows_of_the_tasks_share_out_the_last_conv_without_gap_or_overlap() -> None:
    head = make_head()
    rows = [row for task in head.rows for row in range(head.predict.out_channels)[head.rows[task]]]
    assert sorted(rows) == list(range(head.predict.out_channels))
    assert len(rows) == BOX_ROWS + 3 + 4 + 2


def test_each_task_has_its_logits_in_its_shape() -> None:
    logits = answer(make_head())
    assert there(logits.detection).shape == (2, BOX_ROWS + 3, 3, 4)
    assert there(logits.segmentation).shape == (2, 4, 3, 4)
    assert there(logits.classification).shape == (2, 2)


@pytest.mark.parametrize("task", list(Task))
def test_moving_the_rows_of_a_task_moves_the_answer_of_that_task_alone(task: Task) -> None:
    head = make_head()
    before = answer(head)
    with torch.no_grad():
        head.predict.weight[head.rows[task]] += 1
        head.predict.bias[head.rows[task]] -= 1  # type: ignore[index]  # a conv with bias
    after = answer(head)
    for other in Task:
        same = torch.equal(getattr(after, other), getattr(before, other))
        assert same is (other is not task), other


def test_classification_pools_over_the_whole_grid() -> None:
    head = make_head()
    features = torch.randn(2, 6, 3, 4, generator=torch.manual_seed(1))
    pooled = head.stem(features).mean(dim=(2, 3))
    rows = head.rows[Task.CLASSIFICATION]
    by_hand = pooled @ head.predict.weight[rows].flatten(1).T + head.predict.bias[rows]  # type: ignore[index]  # bias
    torch.testing.assert_close(head(as_features(features)).classification, by_hand)


@pytest.mark.parametrize("task", list(Task))
def test_asked_for_one_task_the_head_says_what_it_says_among_all(task: Task) -> None:
    head, features = make_head(), as_features(torch.randn(2, 6, 3, 4, generator=torch.manual_seed(1)))
    assert torch.equal(head.answer(features, task), getattr(head(features), task.value))


def test_the_stem_sees_a_neighbourhood_of_three_cells() -> None:
    head = make_head()
    features = torch.zeros(1, 6, 5, 5)
    features[0, :, 2, 2] = 1
    seen, nothing = (head(as_features(level)).segmentation for level in (features, torch.zeros_like(features)))
    moved = (seen - nothing).abs().sum(dim=(0, 1)) > 0
    assert moved[1:4, 1:4].any()
    moved[1:4, 1:4] = False
    assert not moved.any()
