"""The control plane: one `T2IServingPool` becomes StatefulSets, Services, a plan and a status."""
