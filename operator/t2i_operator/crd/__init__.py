"""The custom resource definition, generated from the pool's classes: `python -m t2i_operator.crd` prints it."""
