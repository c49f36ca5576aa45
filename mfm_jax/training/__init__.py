"""Records, data preparation, pipelines, one objective a model, and the one loop."""
