"""Fine-tunes PaliGemma to caption images, on one machine or on many: `paligemma finetune`.

    python examples/finetune.py                                   # a small model, drawn scenes
    python examples/finetune.py --config=flickr8k --config.batch_size=16
    python -m paligemma_lib.runtime.launch --count 2 examples/finetune.py --cpu

Checkpoints, metrics, TensorBoard's events, the exported model and the report lie in the config's
workdir. The same command goes on where it was stopped (by SIGTERM, with exit code 143) or killed,
also in another number of processes. On several machines, start it on each, with a workdir that all
of them see: where JAX knows the cluster (a TPU pod, SLURM, Open MPI) as it is, elsewhere with
--coordinator, --processes and --process.
"""

import sys

from paligemma_lib.cli import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
