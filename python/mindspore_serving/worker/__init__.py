"""The worker process: loads one version of a servable and runs its methods."""
