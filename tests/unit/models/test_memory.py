import subprocess
import sys

# In a process of its own: ``keep_memory`` holds for the rest of a process.
PROGRAM = """
import numpy as np
from ray_ns.models.memory import forget_peak, keep_memory, peak_mb

keep_memory()
images = np.ones(300 * 2**20, np.uint8)
last = np.ones(2**10, np.uint8)  # lies above it, so that freeing the images does not shrink the heap by itself
most = peak_mb()
del images
kept = peak_mb()
print(most, kept, forget_peak(), peak_mb())
"""


def test_the_peak_is_counted_anew_without_what_was_freed_and_kept() -> None:
    words = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout.split()
    most, kept, after = (int(words[it]) for it in (0, 1, 3))
    assert most >= 300
    assert kept >= most
    if words[2] == "True":
        assert after <= most - 250
    else:  # no Linux, or a container that does not let it
        assert after >= most
