"""Where a command runs: SLURM or this machine through submitit, Kubernetes, TPU VMs.

`job.py` is the command that a launcher starts, `start.py` chooses one: `submission.py` submits it,
`jobset.py` and `tpu_vm.py` write the text by which others start it."""
