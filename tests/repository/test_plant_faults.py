"""The faults that are planted have a place each, and what is found and what is not are told apart."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.repository.plant_faults import (
    CHECKOUT,
    Fault,
    Result,
    copy_checkout,
    find_place,
    find_tests,
    judge_all,
    read_faults,
)

LIMIT = "return number <= 3"
ROOMS = {"pictures", "telemetry", "engine", "scheduling", "answers", "rollout", "api", "server", "commands"}


@pytest.fixture(autouse=True)
def _without_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time that pytest takes to begin."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A service of two rooms: one whose tests look, and one whose tests fail whatever the code is like."""
    for name, text in {
        "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["."]\naddopts = ["--import-mode=importlib"]\n',
        "service/__init__.py": "",
        "service/gates/door.py": f"def is_open(number):\n    {LIMIT}\n\ndef is_shut(number):\n    return number > 3\n",
        "service/cellar/rats.py": "RATS = 7\nMICE = 7\n",
        "tests/service/gates/test_door.py": (
            "import subprocess\nimport sys\n\nfrom service.gates.door import is_open\n\n\n"
            "def test_other_processes_find_this_service_too(tmp_path):\n"
            "    subprocess.run([sys.executable, '-c', 'import service.gates.door'], cwd=tmp_path, check=True)\n\n\n"
            "def test_the_door_is_open_up_to_three():\n    assert is_open(3)\n    assert not is_open(4)\n"
        ),
        "tests/service/test_cellar.py": "def test_nothing_is_ever_well():\n    assert False\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def plant(checkout: Path, *faults: Fault) -> list[Result]:
    with copy_checkout(checkout) as root:
        return [result for _, result in judge_all(faults, root, {})]


def make_fault(old: str, new: str, *others: tuple[str, str], room: str = "gates") -> Fault:
    return Fault(room, "fault", "nothing is as it should be", ((old, new), *others))


def test_what_is_found_what_is_not_and_what_has_no_place_are_told_apart(checkout: Path) -> None:
    found, missed, nowhere, twice, broken = plant(
        checkout,
        make_fault(LIMIT, "return number < 3"),
        make_fault("return number > 3", "return number >= 3"),
        make_fault("return number == 3", "return number != 3"),
        make_fault("7", "8"),
        make_fault("def is_open(number):", "def is_open(number:"),
    )
    assert (found.verdict, found.where) == ("found", "service/gates/door.py")
    assert found.words == "tests/service/gates/test_door.py::test_the_door_is_open_up_to_three"
    assert missed.verdict == "not found"
    assert (nowhere.verdict, twice.verdict) == ("no place", "no place")
    assert twice.words == "its text is there 2 times: service/cellar/rats.py"
    assert broken.verdict == "broken"  # it cannot even be imported, which no test has found out


def test_a_text_may_have_two_forms(checkout: Path) -> None:
    (result,) = plant(checkout, make_fault("return count <= 3", "return count < 3", (LIMIT, "return number < 3")))
    assert result.verdict == "found"


def test_tests_that_fail_without_a_fault_find_none(checkout: Path) -> None:
    result, other = plant(
        checkout, make_fault("RATS = 7", "RATS = 8", room="cellar"), make_fault("RATS", "A", room="x")
    )
    assert (result.verdict, other.verdict) == ("broken", "broken")
    assert result.words == "without any fault: tests/service/test_cellar.py::test_nothing_is_ever_well"
    assert other.words == "without any fault: the room has no tests"


def test_who_fails_now_and_then_has_found_nothing(checkout: Path) -> None:
    (checkout / "tests" / "service" / "gates" / "test_another.py").write_text(
        "from pathlib import Path\n\n\ndef test_like_the_weather():\n    times = Path('times')\n"
        "    times.write_text(times.read_text() + 'x' if times.exists() else 'x')\n"
        "    assert times.read_text() != 'xx'\n"  # passes without a fault, fails with it, and passes again
    )
    (result,) = plant(checkout, make_fault(LIMIT, "return number < 3"))
    assert (result.verdict, result.words.partition("::")[2]) == ("found", "test_the_door_is_open_up_to_three")


def test_the_checkout_stays_as_it_is(checkout: Path) -> None:
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    plant(checkout, make_fault(LIMIT, "return number < 3"))
    assert {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()} == before


def test_tests_can_be_named_where_they_lie_elsewhere(checkout: Path) -> None:
    shutil.move(checkout / "tests" / "service" / "gates" / "test_door.py", checkout / "tests" / "test_flat.py")
    with copy_checkout(checkout) as root:
        named = {"gates": ["tests/test_flat.py"]}
        ((_, result),) = judge_all([make_fault(LIMIT, "return number < 3")], root, named)
        assert find_tests("cellar", root, named) == ["tests/service/test_cellar.py"]
    assert (result.verdict, result.words.partition("::")[0]) == ("found", "tests/test_flat.py")


def test_every_room_has_two_faults() -> None:
    counts = Counter(fault.room for fault in read_faults())
    assert {room: counts[room] for room in ROOMS if counts[room] < 2} == {}


@pytest.mark.parametrize("fault", read_faults(), ids=str)
def test_every_fault_has_its_place(fault: Fault) -> None:
    module, faulty = find_place(fault, CHECKOUT)
    assert faulty != module.read_text(encoding="utf-8")
    compile(faulty, module, "exec")
