"""``python -m g2r_lightning COMMAND -c experiments/x.yaml``."""

import sys

from g2r_lightning.cli import main

if __name__ == "__main__":
    sys.exit(main())
