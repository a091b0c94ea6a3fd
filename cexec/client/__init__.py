"""The client: it finds a worker for a job, and runs the job there."""
