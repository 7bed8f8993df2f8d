"""surefoot reproduce br_dro: its settings, and the whole path at quick scale."""

import json
from pathlib import Path

import pytest
import yaml

from surefoot.cli import main
from surefoot.reproduce.br_dro.studies import DIGITS, FASHION, WATERBIRDS, job, methods
from surefoot.reproduce.jobs import slug


@pytest.mark.parametrize("study", ["digits", pytest.param("fashion_mnist", marks=pytest.mark.slow), "waterbirds"])
def test_every_candidate_of_every_method_parses(study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The paper's scale needs a GPU and Waterbirds; that its settings are right shows here."""
    chosen = {"digits": DIGITS, "fashion_mnist": FASHION, "waterbirds": WATERBIRDS}[study]
    for method in methods(chosen):
        for i, candidate in enumerate(method.candidates):
            settings = job(chosen, method, candidate, 0, "x").settings
            path = tmp_path / f"{slug(method.name)}-{i}.yaml"
            path.write_text(yaml.safe_dump(dict(settings)))
            with pytest.raises(SystemExit) as stop:
                main(["fit", "--config", str(path), "--print_config"])
            assert stop.value.code == 0
            capsys.readouterr()
    counts = {len(m.candidates) for m in methods(chosen)}
    assert len(counts) == 1, "the same tuning budget for every method"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_quick_reproduction_ends_within_a_minute_and_goes_on_after_a_stop(tmp_path: Path) -> None:
    out = tmp_path / "br_dro"
    main(["reproduce", "br_dro", "--out", str(out)])
    claims = json.loads((out / "claims.json").read_text())
    assert claims
    assert all(c["holds"] is None for c in claims)
    assert json.loads((out / "environment.json").read_text())["seconds"] < 60
    assert all(c["seconds"] is not None for c in claims)
    for figure in ("capacity_toy", "methods_digits"):
        assert (out / f"figures/{figure}.svg").is_file()
    before = {p: p.stat().st_mtime_ns for p in (out / "digits/results").glob("*.json")}
    main(["reproduce", "br_dro", "--out", str(out)])
    assert before == {p: p.stat().st_mtime_ns for p in (out / "digits/results").glob("*.json")}
