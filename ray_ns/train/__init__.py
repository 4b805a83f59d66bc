"""Training one network: the order of images, the step, the state, the loop. Pure torch: it runs without a cluster."""
