"""The auditor: scores approximated images beside the exact ones of the same requests, and corrects the profile."""
