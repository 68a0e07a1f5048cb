"""This file lets `python -m medseg` do what `medseg` does (also in spawned processes)."""

from medseg.cli import main

if __name__ == "__main__":
    main()
