"""What every test folder may ask for."""

pytest_plugins = ["kube_fixtures"]
