"""Split a step among processes, threads and micro-batches, with the gradient of the whole batch."""
