import dataclasses

import numpy as np
import pytest
import torch

from tests.training.continual.stage import HEADS, Pictures, make_config, make_context, make_examples
from training.config import Task
from training.continual.memory import Memory, choose_pictures, find_classes
from training.data.transforms import Boxes


def test_the_picture_with_most_new_classes_comes_first_and_the_first_of_equals() -> None:
    shown = [{0}, {0, 1, 2}, {3, 4}, {2, 3, 4}, {5}]
    # 1 and 3 both show three: 1. Then 2 and 3 both add two: 2. Then only 4 adds anything.
    assert choose_pictures(shown, 3) == [1, 2, 4]


def test_ten_classes_are_covered_by_ten_pictures() -> None:
    shown = [{index // 24} for index in range(240)]
    chosen = choose_pictures(shown, 10)
    assert chosen == [24 * label for label in range(10)]


def test_when_all_is_covered_covering_begins_again() -> None:
    shown = [{0, 1}, {0}, {1}, {0, 1}]
    assert choose_pictures(shown, 3) == [0, 3, 1]


def test_there_are_never_more_than_asked_for_nor_than_there_are() -> None:
    shown = [{index} for index in range(50)]
    assert len(choose_pictures(shown, 10)) == 10
    assert sorted(choose_pictures(shown[:3], 10)) == [0, 1, 2]
    assert choose_pictures([set(), set()], 1) == [0]


def test_void_is_no_class_and_background_is_one() -> None:
    assert find_classes(np.array([[0, 255], [7, 7]], dtype=np.uint8)) == {0, 7}
    assert find_classes(Boxes(np.zeros((2, 4), dtype=np.float32), np.array([3, 3]))) == {3}
    assert find_classes(5) == {5}


def test_it_remembers_few_pictures_that_show_all_classes() -> None:
    memory = Memory(make_context(pictures=20), pictures=3, batch=2)
    assert memory.batches.keys() == {Task.SEGMENTATION, Task.DETECTION}
    masks = memory.batches[Task.SEGMENTATION].targets
    boxes = memory.batches[Task.DETECTION].targets
    assert isinstance(masks, torch.Tensor)
    assert isinstance(boxes, tuple)
    assert set(masks.flatten().tolist()) == {0, 1, 2}
    assert {int(label) for target in boxes for label in target.labels} == {0, 1}
    assert all(len(batch.images) == 3 for batch in memory.batches.values())


def test_pictures_are_remembered_as_serving_sees_them() -> None:
    context = make_context()
    config = context.config
    image, target = make_examples(Task.CLASSIFICATION, 1)[0]
    tall = np.ascontiguousarray(image[:, :32])
    datasets = {**context.datasets, Task.SEGMENTATION: Pictures([(tall, np.full((64, 32), 2, np.uint8))], config)}
    batch = Memory(dataclasses.replace(context, datasets=datasets), pictures=1, batch=1).batches[Task.SEGMENTATION]
    assert np.array_equal(batch.images[0, :, :32].numpy(), tall)
    assert isinstance(batch.targets, torch.Tensor)
    assert (batch.targets[0, :, 8:] == 255).all()
    assert (batch.targets[0, :, :8] == 2).all()
    assert target == 0


def test_a_step_draws_pictures_of_all_tasks_without_doubles() -> None:
    memory = Memory(make_context(), pictures=3, batch=5)
    drawn = memory.draw(0.25)
    assert sum(len(one.rows) for one in drawn) == 5
    assert all(len(set(one.rows)) == len(one.rows) for one in drawn)
    assert sum(one.share for one in drawn) == pytest.approx(1)
    for one in drawn:
        assert one.share == len(one.rows) / 5
        assert torch.equal(one.batch.images, memory.batches[one.task].images[one.rows])


def test_in_the_course_of_a_stage_every_picture_is_drawn() -> None:
    memory = Memory(make_context(), pictures=3, batch=2)
    drawn = [(one.task, row) for step in range(60) for one in memory.draw(step / 60) for row in one.rows]
    counts = {each: drawn.count(each) for each in set(drawn)}
    assert len(counts) == 6
    assert min(counts.values()) > 8  # of 20 on average


def test_the_same_point_of_the_same_stage_draws_the_same_and_another_seed_does_not() -> None:
    def rows(seed: int) -> list[tuple[Task, list[int]]]:
        config = make_config().model_copy(update={"seed": seed})
        memory = Memory(make_context(config), pictures=4, batch=2)
        return [(one.task, one.rows) for step in range(10) for one in memory.draw(step / 10)]

    assert rows(0) == rows(0)
    assert rows(0) != rows(1)


def test_take_keeps_pictures_labels_and_numbers_together() -> None:
    memory = Memory(make_context(), pictures=4, batch=2)
    for task, batch in memory.batches.items():
        part = batch.select([2, 0])
        assert torch.equal(part.images, batch.images[[2, 0]])
        assert part.indices.tolist() == batch.indices[[2, 0]].tolist()
        if task is Task.DETECTION:
            assert part.targets[0] is batch.targets[2]
        else:
            assert torch.equal(part.targets[1], batch.targets[0])  # type: ignore[arg-type]  # masks


@pytest.mark.parametrize("head", HEADS)
def test_remembering_leaves_the_network_training_and_its_statistics_alone(head: str) -> None:
    context = make_context(make_config(head=head))
    model = context.model
    model.begin_stage()  # batch-norm of the neck is live
    before = {name: value.clone() for name, value in model.state_dict().items()}
    memory = Memory(context, pictures=2, batch=4)
    for one in memory.draw(0.0):
        logits = memory.answer(one)
        loss = memory.label_loss(one, logits)
        assert loss > 0
        assert logits.requires_grad
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
