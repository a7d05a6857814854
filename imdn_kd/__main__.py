"""`python -m imdn_kd` is `imdn-kd`; launchers such as torchrun start modules."""

from __future__ import annotations

from imdn_kd.cli import main

if __name__ == "__main__":
    main()
