"""What every test folder may ask for."""

# Its pytest plugin imports it at the very end where no test did, in the middle of what servers left to be collected:
# CPython 3.11 then sometimes fails to parse it (SystemError: AST constructor recursion depth mismatch).
import hypothesis  # noqa: F401

pytest_plugins = ["kube_fixtures", "valkey_fixtures"]
