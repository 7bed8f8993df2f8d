"""docs/python.md runs from top to bottom, as one session in an empty folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

from documented_code import read_blocks

ROOT = Path(__file__).parents[1]

CHECKS = """
import json
print(json.dumps({
    "trained": bool(metrics.history[-1]["val/worst_group_accuracy"] >= 0),
    "same_weights": all(p.equal(q) for p, q in zip(module.parameters(), again.parameters(), strict=True)),
    "logits": list(logits.shape),
    "finished": (run / "finished.json").is_file(),
    "n_texts": len(texts),
    "last_grade": grades[-1].status,
}))
"""


def test_the_page_s_session_runs_in_a_fresh_interpreter(tmp_path: Path) -> None:
    blocks = read_blocks(ROOT / "docs/python.md")
    assert len(blocks.programs) == 4
    (tmp_path / "session.py").write_text("".join([*blocks.programs, CHECKS]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "session.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "trained": True,
        "same_weights": True,
        "logits": [359, 2],
        "finished": True,
        "n_texts": 8,
        "last_grade": "correct",
    }
