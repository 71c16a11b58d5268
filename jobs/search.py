"""Entry of a Ray job: `ray job submit --working-dir . -- python jobs/search.py --config FILE`.

The job joins the cluster that runs it (Ray sets RAY_ADDRESS); the run folder must be on storage that all nodes see.
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    main(["search", *sys.argv[1:]])
