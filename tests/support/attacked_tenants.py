"""What the tenants of the attacked pools have asked for, and their tokens."""

from t2i_runtime.tokens import line_of, new_token
from t2i_testing_kit.cached_prompts import captions

TENANTS = {name: new_token() for name in ("victim", "attacker", "prober", "newcomer")}
LINES = "\n".join(line_of(token, name) for name, token in TENANTS.items())
SECRETS = captions(300, seed=1)  # what the victim has asked for
PLANTED = captions(100, seed=2)  # what the attacker has left latents for, and the victim will ask for
