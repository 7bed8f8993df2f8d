"""YAML that says one thing twice is refused."""

from pathlib import Path

import pytest
import yaml

from surefoot.cli.settings import check_yaml
from surefoot.errors import ConfigError
from surefoot.pipelines import read_pipeline
from surefoot.storage.yaml_files import read_yaml


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("trainer: {max_epochs: 1}\nmodel: a\ntrainer: {max_epochs: 2}\n", "trainer"),
        ("model:\n  init_args:\n    lr: 1\n    width: 2\n    lr: 3\n", "lr"),
        ("callbacks:\n  - {class_path: A, class_path: B}\n", "class_path"),
        ("a: {1: x, 1: y}\n", "1"),
    ],
)
def test_a_key_that_comes_twice_is_named(text: str, key: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(yaml.YAMLError, match=f"the key {key} comes twice"):
        read_yaml(path)
    with pytest.raises(ConfigError, match=rf"config.yaml is not valid yaml: the key {key} comes twice"):
        check_yaml(path)
    with pytest.raises(ConfigError, match="is not a pipeline"):
        read_pipeline(path)


def test_equal_keys_in_different_mappings_and_overridden_merges_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("base: &base {lr: 1, width: 2}\nother: {<<: *base, lr: 3}\nlist: [{a: 1}, {a: 2}]\n1: x\n'1': y\n")
    assert read_yaml(path) == {
        "base": {"lr": 1, "width": 2},
        "other": {"lr": 3, "width": 2},
        "list": [{"a": 1}, {"a": 2}],
        1: "x",
        "1": "y",
    }


def test_objects_are_not_made(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(yaml.YAMLError):
        read_yaml(path)
