"""The slow loop: from demand to a plan, which says where workers stand and which levels prompts are drawn to."""
