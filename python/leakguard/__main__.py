"""python -m leakguard, and the script leakguard."""

import sys

from leakguard._cli import main

if __name__ == "__main__":
    sys.exit(main())
