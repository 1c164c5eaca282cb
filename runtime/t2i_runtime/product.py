"""What this product is called, and which version of it runs. Containers hold its code without package metadata."""

PRODUCT = "t2i-serving"
VERSION = "0.1.0"
