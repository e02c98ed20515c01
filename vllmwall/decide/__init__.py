"""Who may connect: pure functions from recognized workloads to wanted walls."""
