"""The GPU record, on a machine with a card and without Ray: `python jobs/gpu_record.py --input FILE --out DIR`.

It measures correctness, speed and sensitivity step by step (`--help`); `make gpu-input` makes the input.
"""

import sys

from gpurecord.record import main

if __name__ == "__main__":
    sys.exit(main())
