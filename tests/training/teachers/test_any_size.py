from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from tests.training.data.labelling.make_teachers import write_grids
from training.teachers.any_size import free_input


def run(model: bytes, images: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[np.ndarray]:
    outputs: list[np.ndarray] = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(
        None, {"images": images}
    )
    return outputs


@pytest.mark.parametrize("written", ["initializer", "constant"])
def test_one_picture_of_one_size_becomes_any_number_of_any_size(tmp_path: Path, written: str) -> None:
    path = write_grids(tmp_path / "t.onnx", size=64)
    if written == "constant":
        model = onnx.load(path)
        (shape,) = [one for one in model.graph.initializer if one.name == "shape"]
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["shape"], value=shape))
        model.graph.initializer.remove(shape)
        onnx.save(model, path)
    fixed = path.read_bytes()
    free = free_input(fixed)
    rng = np.random.default_rng(0)
    square = rng.random((1, 3, 64, 64), dtype=np.float32)
    np.testing.assert_array_equal(run(free, square)[0], run(fixed, square)[0])
    three = rng.random((3, 3, 96, 96), dtype=np.float32)
    (together,) = run(free, three)
    assert together.shape == (3, 12 * 12 + 6 * 6 + 3 * 3, 8)
    for row in range(3):
        np.testing.assert_allclose(run(free, three[row : row + 1])[0][0], together[row], atol=1e-6)
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run(fixed, three)


def test_shapes_that_say_no_batch_stay(tmp_path: Path) -> None:
    path = write_grids(tmp_path / "t.onnx")
    model = onnx.load(path)
    (shape,) = [one for one in model.graph.initializer if one.name == "shape"]
    shape.CopyFrom(numpy_helper.from_array(np.array([-1, 8, 64]), "shape"))
    free = onnx.load_from_string(free_input(model.SerializeToString()))
    (left,) = [one for one in free.graph.initializer if one.name == "shape"]
    assert numpy_helper.to_array(left).tolist() == [-1, 8, 64]
