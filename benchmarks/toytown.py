"""How fast ToyTown renders on one core: ``python benchmarks/toytown.py [--pictures 40] [--repeats 5]``."""

from __future__ import annotations

import argparse
import statistics
import time

import cv2

from rtda_training.data import toytown


def main() -> None:
    """Print pictures per second of each domain, median and range over the repeats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=40, help="pictures in one repeat")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    for domain in toytown.DOMAINS:
        toytown.render(domain, "train", 0)  # textures are drawn once per process and are not what is measured
        rates = []
        for _ in range(options.repeats):
            started = time.perf_counter()
            for index in range(options.pictures):
                toytown.render(domain, "train", index)
            rates.append(options.pictures / (time.perf_counter() - started))
        print(
            f"toytown:{domain}  512x256, one core: {statistics.median(rates):.1f} pictures/s "
            f"({min(rates):.1f}..{max(rates):.1f} over {options.repeats} x {options.pictures})"
        )


if __name__ == "__main__":
    main()
