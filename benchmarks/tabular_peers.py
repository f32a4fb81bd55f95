"""The worker of ``tabular.py --peers``: TabularARGN at its defaults, ended by its own rule or after the minutes.

It needs mostlyai-engine and nothing of this project: pip install torch==2.13.0 mostlyai-engine (without torchvision and
torchaudio of another torch).

    python tabular_peers.py train.parquet synthetic.parquet THREADS MINUTES

Prints one JSON object of seconds.
"""

import json
import sys
import tempfile
import time

import pandas as pd
import torch
from mostlyai.engine import TabularARGN

rows, made, threads, minutes = sys.argv[1:]
torch.set_num_threads(int(threads))
train = pd.read_parquet(rows)
with tempfile.TemporaryDirectory() as workspace:
    began = time.perf_counter()
    model = TabularARGN(max_training_time=float(minutes), random_state=0, workspace_dir=workspace).fit(train)
    fitted = time.perf_counter()
    fake = model.sample(n_samples=len(train))
    drawn = time.perf_counter()
fake[list(train.columns)].to_parquet(made)
print(json.dumps({"fit seconds": fitted - began, "sample seconds": drawn - fitted}))
