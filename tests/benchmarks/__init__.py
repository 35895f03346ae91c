import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line: before anything loads torch
