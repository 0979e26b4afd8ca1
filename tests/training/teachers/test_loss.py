import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.fakes import random_logits
from tests.training.teachers.fakes import CPU, SIZE, ColourTeacher, make_config, make_model
from training.config import StageConfig, Task
from training.continual.build import build_hooks
from training.data.batches import Batch
from training.data.feed.dataset import TaskDataset, load_sample
from training.data.placement import Placement, Span, letterboxed
from training.data.sources import read_data
from training.data.taxonomy import MINI, Taxonomy
from training.files import CACHE_VARIABLE
from training.hooks.context import StageContext
from training.hooks.divergences import compute_divergence
from training.hooks.hook import Step
from training.models.multitask import MultiTaskModel
from training.options.stage import TeacherConfig
from training.teachers import loss as loss_module
from training.teachers.cache import TeacherCache
from training.teachers.loss import Lesson, TeacherLoss, build_teacher_loss

WHOLE = letterboxed((SIZE, SIZE), SIZE)


def make_step(
    model: MultiTaskModel, task: Task, *, rows: list[int], placements: tuple[Placement | None, ...] | None = None
) -> Step:
    images = torch.randint(0, 256, (len(rows), SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.manual_seed(1))
    features = model.extract(images)
    batch = Batch(images, torch.zeros(len(rows)), torch.tensor(rows), placements or (WHOLE,) * len(rows))
    return Step(batch=batch, features=features, logits=model.head.answer(features, task), progress=0.0)


def class_answers(count: int) -> Tensor:
    return random_logits(count, 10, seed=2).half()


def lesson_of(answers: Tensor, task: Task, *, weight: float = 1.0, temperature: float = 2.0) -> Lesson:
    return Lesson(task, TeacherCache(list(answers.numpy())), weight, temperature)


def test_classes_are_compared_with_the_answers_to_the_batch_s_own_pictures() -> None:
    model, answers = make_model(), class_answers(6)
    step = make_step(model, Task.CLASSIFICATION, rows=[4, 1, 5])
    lesson = lesson_of(answers, Task.CLASSIFICATION, weight=3.0)
    found = TeacherLoss(model, Task.CLASSIFICATION, [lesson]).losses(step)
    expected = 3 * compute_divergence(step.logits, answers[[4, 1, 5]].float(), 2.0).mean()
    assert list(found) == ["teacher/classification"]
    assert found["teacher/classification"].item() == pytest.approx(expected.item())


def test_pictures_that_are_mixed_of_several_are_not_taught() -> None:
    model, answers = make_model(), class_answers(6)
    step = make_step(model, Task.CLASSIFICATION, rows=[4, 1, 5], placements=(None, WHOLE, None))
    teacher = TeacherLoss(model, Task.CLASSIFICATION, [lesson_of(answers, Task.CLASSIFICATION)])
    expected = compute_divergence(step.logits[1:2], answers[1:2].float(), 2.0)
    assert teacher.losses(step)["teacher/classification"].item() == pytest.approx(expected.item())
    step = make_step(model, Task.CLASSIFICATION, rows=[4, 1], placements=(None, None))
    assert teacher.losses(step) == {}


def test_masks_are_compared_where_the_picture_lies_and_nowhere_else() -> None:
    """The teacher gives all logits to one class on the left half of the picture; the picture is on the right."""
    model = make_model()
    answer = np.zeros((2, 2, 21), dtype=np.float16)
    answer[:, 0, 3] = 8
    right = Placement(Span(64, 32, 32, SIZE), Span(64, 64, 0, SIZE))
    step = make_step(model, Task.SEGMENTATION, rows=[0], placements=(right,))
    logits = torch.zeros(1, 21, 4, 4)
    logits[0, 3, :, 2] = 8
    teacher = TeacherLoss(model, Task.SEGMENTATION, [Lesson(Task.SEGMENTATION, TeacherCache([answer]), 1.0, 1.0)])

    def cost(said: Tensor) -> float:
        return teacher.losses(step._replace(logits=said))["teacher/segmentation"].item()

    assert cost(logits) == pytest.approx(0, abs=1e-5)
    logits[0, :, :, :2] = random_logits(21, 4, 2)
    assert cost(logits) == pytest.approx(0, abs=1e-5)
    assert cost(logits.flip(3)) > 1


def test_a_mirrored_picture_has_a_mirrored_teacher() -> None:
    model = make_model()
    answer = random_logits(4, 4, 21).half()
    mirrored = letterboxed((SIZE, SIZE), SIZE, mirrored=True)
    step = make_step(model, Task.SEGMENTATION, rows=[0], placements=(mirrored,))
    step = step._replace(logits=answer.float().permute(2, 0, 1)[None].flip(3))
    lesson = Lesson(Task.SEGMENTATION, TeacherCache([answer.numpy()]), 1.0, 1.0)
    found = TeacherLoss(model, Task.SEGMENTATION, [lesson]).losses(step)
    assert found["teacher/segmentation"].item() == pytest.approx(0, abs=1e-5)


def test_a_teacher_of_another_task_asks_that_task_s_branch() -> None:
    model = make_model()
    step = make_step(model, Task.DETECTION, rows=[0, 1])
    cells = SIZE // 32
    answers = random_logits(2, cells, cells, 21, seed=3).half()
    lesson = lesson_of(answers, Task.SEGMENTATION)
    found = TeacherLoss(model, Task.DETECTION, [lesson]).losses(step)["teacher/segmentation"]
    said = model.head.answer(step.features, Task.SEGMENTATION)
    expected = compute_divergence(said, answers.float().permute(0, 3, 1, 2), 2.0).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    found.backward()  # type: ignore[no-untyped-call]  # torch's, untyped
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())


def test_two_teachers_of_one_task_add_up_and_those_of_two_tasks_are_listed_apart() -> None:
    model, answers = make_model(), class_answers(2)
    step = make_step(model, Task.CLASSIFICATION, rows=[0, 1])
    one, half = lesson_of(answers, Task.CLASSIFICATION), lesson_of(answers, Task.CLASSIFICATION, weight=0.5)
    mask = lesson_of(random_logits(2, 2, 2, 21).half(), Task.SEGMENTATION)
    alone = TeacherLoss(model, Task.CLASSIFICATION, [one]).losses(step)["teacher/classification"].item()
    found = TeacherLoss(model, Task.CLASSIFICATION, [one, mask, half]).losses(step)
    assert list(found) == ["teacher/classification", "teacher/segmentation"]
    assert found["teacher/classification"].item() == pytest.approx(1.5 * alone)


def make_context(root: Path, teachers: tuple[TeacherConfig, ...]) -> StageContext:
    sets = read_data(root)
    config, model = make_config(), make_model()
    return StageContext(
        config=config,
        stage=StageConfig(task=Task.DETECTION, epochs=1, teachers=teachers),
        model=model,
        before={},
        anchors={},
        learned=(Task.SEGMENTATION,),
        datasets={task: TaskDataset(sets.split(task).train, config, MINI) for task in Task},
        device=CPU,
        taxonomy=MINI,
    )


def test_the_teachers_of_a_stage_see_its_training_pictures_alone(
    tiny_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[ColourTeacher] = []

    def open_fake(source: str, task: Task, *, taxonomy: Taxonomy, device: torch.device) -> ColourTeacher:
        assert (source, taxonomy, device) == (f"{task}.pt", MINI, CPU)
        opened.append(ColourTeacher(task))
        return opened[-1]

    monkeypatch.setattr(loss_module, "open_teacher", open_fake)
    taught = (Task.SEGMENTATION, Task.CLASSIFICATION)
    context = make_context(tiny_sets, tuple(TeacherConfig(source=f"{task}.pt", task=task) for task in taught))
    hook = build_teacher_loss(context, folder=tmp_path)
    samples = read_data(tiny_sets).split(Task.DETECTION)
    for teacher in opened:
        assert len(teacher.shown) == len(samples.train)
    val = [load_sample(sample, MINI)[0] for sample in samples.val]
    assert not any(np.array_equal(square[: image.shape[0]], image) for square in opened[0].shown for image in val)
    assert set(hook.losses(make_step(context.model, Task.DETECTION, rows=[0, 5]))) == {
        "teacher/segmentation",
        "teacher/classification",
    }


def test_a_teacher_that_names_no_task_teaches_the_stage_s_own(tiny_sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Task] = []

    def open_fake(source: str, task: Task, *, taxonomy: Taxonomy, device: torch.device) -> ColourTeacher:
        del source, taxonomy, device
        asked.append(task)
        return ColourTeacher(task)

    monkeypatch.setattr(loss_module, "open_teacher", open_fake)
    context = make_context(tiny_sets, (TeacherConfig(source="run.pt"),))
    stage = context.stage.model_copy(update={"task": Task.CLASSIFICATION})
    build_teacher_loss(dataclasses.replace(context, stage=stage))
    assert asked == [Task.CLASSIFICATION]


def test_what_a_teacher_said_serves_the_run_when_it_is_resumed_and_other_runs(
    tiny_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[ColourTeacher] = []

    def open_fake(source: str, task: Task, *, taxonomy: Taxonomy, device: torch.device) -> ColourTeacher:
        del source, taxonomy, device
        opened.append(ColourTeacher(task))
        return opened[-1]

    monkeypatch.setattr(loss_module, "open_teacher", open_fake)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    context = make_context(tiny_sets, (TeacherConfig(source="run.pt", task=Task.SEGMENTATION),))
    losses = []
    for _ in range(2):
        (hook,) = build_hooks(context)
        (loss,) = hook.losses(make_step(context.model, Task.DETECTION, rows=[0, 5])).values()
        losses.append(loss.item())
    assert [len(teacher.shown) for teacher in opened] == [6, 0]
    assert losses[0] == losses[1] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["answers"]
