"""Fine-tunes PaliGemma to caption images, on one machine or on many: `paligemma finetune`.

    python examples/finetune.py                                   # a small model, drawn scenes
    python examples/finetune.py --config=flickr8k --config.batch_size=16
    python -m paligemma_lib.runtime.launch --count 2 examples/finetune.py --cpu

Checkpoints, metrics, TensorBoard events, the exported model and the report are written to the
config's workdir. After a stop (by SIGTERM, with exit code 143) or a kill, the same command resumes
the run, also with another number of processes. On several machines, start the command on each of
them with a workdir that all of them can access. Where JAX recognizes the cluster (a TPU pod, SLURM,
Open MPI), it needs no further options; elsewhere, add --coordinator, --processes and --process.
"""

import sys

from paligemma_lib.cli import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
