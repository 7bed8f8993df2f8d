"""Epsilons by opacus' accountants, for the tests to compare with; run in an environment of its own.

python -m venv /tmp/opacus && /tmp/opacus/bin/pip install opacus==1.6.0
/tmp/opacus/bin/python benchmarks/peers/opacus_accounting.py tests/data/opacus_epsilons.json
"""

import json
import sys
from pathlib import Path

import opacus
from opacus.accountants import PRVAccountant, RDPAccountant

#: noise multiplier, sampling rate, steps, delta
CASES = (
    (15.5, 1.0, 10, 1e-5),
    (49.0, 1.0, 100, 1e-5),
    (1.0, 0.01, 1000, 1e-5),
    (0.7, 0.004, 5000, 1e-6),
    (2.0, 0.1, 300, 1e-5),
    (4.0, 0.2, 200, 1e-6),
    (1.1, 0.02, 1, 1e-5),
)
#: dp-accounting's own orders; the Renyi bound is a minimum over them.
ORDERS = [1 + x / 10.0 for x in range(1, 100)] + list(range(11, 64)) + [128, 256, 512, 1024]


def main() -> None:
    """Write the epsilons."""
    rows = []
    for noise, rate, steps, delta in CASES:
        rdp, prv = RDPAccountant(), PRVAccountant()
        for accountant in (rdp, prv):
            accountant.history = [(noise, rate, steps)]
        rows.append(
            {
                "noise_multiplier": noise,
                "sampling_rate": rate,
                "n_steps": steps,
                "delta": delta,
                "rdp": rdp.get_epsilon(delta, alphas=ORDERS),
                "prv": prv.get_epsilon(delta, eps_error=4e-4, delta_error=delta / 1e4),
            }
        )
    result = {"opacus": opacus.__version__, "cases": rows}
    Path(sys.argv[1]).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
