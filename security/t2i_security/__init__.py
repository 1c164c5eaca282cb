"""Who is who: certificates and tokens from mounted Secrets, reloaded while serving, and the names in them."""
