"""What a run trains for: the losses of a step, and the gradients of each of its updates."""
