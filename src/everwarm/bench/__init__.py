"""What measures a server, ours or another: it speaks HTTP and nothing else."""
