"""One device: turns a StepPlan into sampled tokens."""
