"""`unihead-train run`: from weights, in segments, and what is looked at before the first epoch."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import Result

from tests.training.commands.invoking import assert_one_sentence, invoke, resume, run_tiny
from tests.training.make_sets import write_tiny_sets
from tests.training.starting.files import write_origin
from tests.training.watched import assert_same_tensors, without_times
from training.checkpoint import CHECKPOINT_NAME, load_checkpoint
from training.config import Task
from training.data.taxonomy import MINI, Taxonomy
from training.environment import read_environments
from training.files import hash_file
from training.inference import restore_model
from training.lab.report.forgetting import compute_drops
from training.lab.summary import load_run

TAUGHT = """
preset = "taught"
input_size = 64
eval_batch_size = 4
[model]
backbone_weights = "random"
neck = "fpn"
neck_channels = 16
head = "branches"
[[stages]]
task = "segmentation"
epochs = 1
batch_size = 6
[[stages]]
task = "detection"
epochs = 1
batch_size = 6
[[stages]]
task = "classification"
epochs = 1
batch_size = 6
[[stages.teachers]]
source = "TEACHER"
"""


def write_preset(folder: Path, teacher: Path) -> Path:
    (folder / "taught.toml").write_text(TAUGHT.replace("TEACHER", str(teacher)))
    return folder / "taught.toml"


def run_preset(preset: Path, data: Path, out: Path, *more: object) -> Result:
    return invoke("run", "--preset", preset, "--data", data, "--out", out, "--device", "cpu", *more)


def test_a_teacher_of_the_third_stage_that_does_not_exist_ends_the_run_before_the_first_epoch(
    tiny_sets: Path, tmp_path: Path
) -> None:
    preset = write_preset(tmp_path, tmp_path / "absent.pt")
    result = run_preset(preset, tiny_sets, tmp_path / "run")
    assert_one_sentence(result, "stage classification: the teacher", "absent.pt does not exist")
    assert "segmentation 1/1" not in result.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--init-from", "absent.pt"], "absent.pt does not exist; wanted a checkpoint or a file of weights"),
        (["--stage", "detection"], "before the segment, segmentation, has to be learned: give"),
        (["--stage", "detects"], "preset tiny has no stage 'detects'; it has segmentation, detection, classification"),
    ],
)
def test_a_beginning_that_is_none_is_one_sentence_and_leaves_no_folder(
    tiny_sets: Path, tmp_path: Path, words: list[str], sentence: str
) -> None:
    assert_one_sentence(run_tiny(tiny_sets, tmp_path / "run", *words), sentence)
    assert not (tmp_path / "run").exists()


def test_a_segment_needs_the_data_of_what_was_learned_before(tmp_path: Path) -> None:
    data = write_tiny_sets(tmp_path / "data")
    shutil.rmtree(data / "mini_voc_seg")
    write_origin(tmp_path / "origin.pt", taxonomy=MINI)
    words = ["--init-from", str(tmp_path / "origin.pt"), "--stage", "detection"]
    assert_one_sentence(run_tiny(data, tmp_path / "run", *words), "the data has nothing of segmentation")


def test_a_machine_that_has_not_what_a_run_needs_is_one_sentence(
    tiny_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.commands.run.find_memory_limit_bytes", lambda: 1000)
    assert_one_sentence(run_tiny(tiny_sets, tmp_path / "run"), "of memory, and a run of preset tiny keeps")
    monkeypatch.undo()
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    assert_one_sentence(run_tiny(tiny_sets, tmp_path / "run"), "has 0 MiB free, and two checkpoints need")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--resume", "--init-from", "a.pt"], "keeps its own preset"),
        (["--resume", "--stage", "detection"], "keeps its own preset"),
        (["--teacher", "a.pt=b.pt"], "a preset names the teachers"),
        (["--only", "detection", "--stage", "detection"], "a run of one task has one stage"),
    ],
)
def test_options_that_do_not_go_together_are_a_mistake_of_the_command_line(
    tiny_sets: Path, tmp_path: Path, words: list[str], complaint: str
) -> None:
    result = invoke("run", "--data", tiny_sets, "--out", tmp_path / "run", *words)
    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.split())


@pytest.mark.slow
def test_segments_of_checkpoints_end_as_one_run_of_all_stages(
    tiny_sets: Path, finished_run: Path, tmp_path: Path
) -> None:
    previous: list[str] = []
    for task in Task:
        result = run_tiny(tiny_sets, tmp_path / task, "--stage", task, *previous)
        assert result.exit_code == 0, result.output
        previous = ["--init-from", str(tmp_path / task)]
    chain, whole = (load_checkpoint(folder / CHECKPOINT_NAME) for folder in (tmp_path / task, finished_run))
    assert_same_tensors(chain.model, whole.model)
    assert without_times(chain.evaluations) == without_times(whole.evaluations)
    assert chain.learned == whole.learned == tuple(Task)
    assert compute_drops(chain.evaluations) == compute_drops(whole.evaluations)
    assert load_run(tmp_path / task).tasks == tuple(Task)
    assert "this run is not finished" not in (tmp_path / task / "report.html").read_text()
    assert {entry["stage"] for entry in chain.history if entry["kind"] == "epoch"} == {task}
    before = (tmp_path / task / CHECKPOINT_NAME).read_bytes()
    assert resume(tiny_sets, tmp_path / task).exit_code == 0  # it is at its end
    assert (tmp_path / task / CHECKPOINT_NAME).read_bytes() == before
    assert load_checkpoint(tmp_path / Task.DETECTION / CHECKPOINT_NAME).stage == 2
    assert resume(tiny_sets, tmp_path / Task.DETECTION).exit_code == 0
    assert load_checkpoint(tmp_path / Task.DETECTION / CHECKPOINT_NAME).stage == 2


@pytest.mark.slow
def test_a_segment_starts_from_weights_alone_which_are_measured_and_taught_from_too(
    tiny_sets: Path, tmp_path: Path
) -> None:
    first = run_preset(write_preset(tmp_path, tmp_path / "w.pt"), tiny_sets, tmp_path / "one", "--through", "detection")
    assert first.exit_code == 0, first.output
    written = invoke("weights", tmp_path / "one", "--out", tmp_path / "small" / "weights.pt")
    assert written.exit_code == 0, written.output
    assert "has learned segmentation and detection" in written.stdout
    weights = tmp_path / "small" / "weights.pt"
    assert weights.stat().st_size < (tmp_path / "one" / CHECKPOINT_NAME).stat().st_size / 3
    assert_one_sentence(
        invoke("weights", tmp_path / "one", "--out", tmp_path / "one" / CHECKPOINT_NAME), "is the checkpoint itself"
    )
    measured = invoke("evaluate", "--data", tiny_sets, "--checkpoint", weights, "--device", "cpu")
    assert json.loads(measured.stdout).keys() == {"segmentation", "detection"}

    write_origin(tmp_path / "w.pt", taxonomy=load_checkpoint(weights).taxonomy)
    words = ["--init-from", weights, "--stage", "classification"]
    second = run_preset(tmp_path / "taught.toml", tiny_sets, tmp_path / "two", *words)
    assert second.exit_code == 0, second.output
    assert "of the file not used" in second.stdout
    done = load_checkpoint(tmp_path / "two" / CHECKPOINT_NAME)
    assert (done.learned, done.origin_sha256) == (tuple(Task), hash_file(weights))
    assert done.teachers == {str(tmp_path / "w.pt"): hash_file(tmp_path / "w.pt")}
    assert done.evaluations[-1]["metrics"].keys() == set(Task)
    origin = restore_model(load_checkpoint(weights)).state_dict()
    assert done.before.keys() == origin.keys()
    assert_same_tensors(done.before, origin)
    environments = read_environments(tmp_path / "two")
    assert [each["started from weights of SHA-256"] for each in environments] == [hash_file(weights)]

    weights.unlink()  # a run that goes on does not need it
    assert resume(tiny_sets, tmp_path / "two").exit_code == 0
    assert len(read_environments(tmp_path / "two")) == 1


@pytest.mark.slow
def test_a_run_goes_on_with_a_teacher_that_lies_elsewhere_if_it_is_the_same(
    tiny_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_tiny(tiny_sets, tmp_path / "teacher")
    teacher, moved, other = (tmp_path / name for name in ("teacher.pt", "moved.pt", "other.pt"))
    shutil.copy(tmp_path / "teacher" / CHECKPOINT_NAME, teacher)
    preset, out = write_preset(tmp_path, teacher), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("training.commands.run.parse_duration", lambda _: 1e-9)  # over before the first step
        assert run_preset(preset, tiny_sets, out).exit_code == 75
    teacher.rename(moved)
    shutil.copy(tmp_path / "teacher" / CHECKPOINT_NAME, other)
    with other.open("ab") as file:
        file.write(b"more")
    assert_one_sentence(resume(tiny_sets, out), "teacher.pt does not exist", f"--teacher {teacher}=NEW")
    assert_one_sentence(
        resume(tiny_sets, out, "--teacher", f"{teacher}={other}"), "is not the one that the run was begun with"
    )
    result = resume(tiny_sets, out, "--teacher", f"{teacher}={moved}")
    assert result.exit_code == 0, result.output
    done = load_checkpoint(out / CHECKPOINT_NAME)
    assert (done.learned, done.teachers) == (tuple(Task), {str(moved): hash_file(moved)})


@pytest.mark.slow
def test_fine_tuning_takes_weights_of_other_classes_and_says_what_it_took(tiny_sets: Path, tmp_path: Path) -> None:
    write_origin(tmp_path / "origin.pt", taxonomy=Taxonomy(("background", "cat"), ("rust", "Dog")))
    preset, words = write_preset(tmp_path, tmp_path / "origin.pt"), ["--init-from", tmp_path / "origin.pt"]
    result = run_preset(preset, tiny_sets, tmp_path / "run", *words, "--only", "detection")
    assert result.exit_code == 0, result.output
    done = load_checkpoint(tmp_path / "run" / CHECKPOINT_NAME)
    classes = len(done.taxonomy.detection)
    assert f"51 and 2 in part (1 of {classes} rows)" in result.stdout
    assert [entry["stage"] for entry in done.history] == ["detection", "detection"]


@pytest.mark.slow
def test_paths_of_a_data_file_count_from_the_root(tiny_sets: Path, tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    shown = tmp_path / "sets" / "data.toml"
    shown.write_text('[[source]]\ntask = "classification"\npath = "imagenette_160"\n')
    words = ["--data", shown, "--device", "cpu"]
    assert_one_sentence(invoke("run", *words, "--preset", "tiny", "--out", tmp_path / "run"), "imagenette_160")
    result = invoke("run", *words, "--preset", "tiny", "--out", tmp_path / "run", "--root", tiny_sets)
    assert result.exit_code == 0, result.output
    checkpoint = tmp_path / "run" / CHECKPOINT_NAME
    assert invoke("evaluate", *words, "--checkpoint", checkpoint, "--root", tiny_sets).exit_code == 0
    assert invoke("report", tmp_path / "run", "--data", shown, "--root", tiny_sets).exit_code == 0
