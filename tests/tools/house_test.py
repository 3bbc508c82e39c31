import house
import pytest


def test_rooms_import_downwards_only():
    graph = house.rooms()
    assert house.circles(graph) == []
    assert len(graph) <= 16
    assert 0 < house.floors(graph) <= 9


def test_no_line_is_wide_and_no_formatting_is_switched_off():
    assert house.wide_lines() == 0
    assert house.formatting_switched_off() == 0


def test_configs_say_little():
    lines = house.config_lines()
    assert sorted(lines.values())[len(lines) // 2] <= 20
    assert max(count for name, count in lines.items() if name != "cifar10_resnet56") <= 45


def test_the_readme_is_short():
    assert (house.ROOT / "README.md").stat().st_size < 7000


@pytest.mark.slow
def test_few_frames_lie_between_the_entry_and_a_loss():
    assert house.frames_to_the_loss() <= 9
