"""The data plane: a prompt in, an image stream out."""

import os

# Lookups are small matrix products: BLAS threads cost more than they bring, and spin beside the event loop. Must be set
# before numpy loads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
