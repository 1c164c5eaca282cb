"""`python -m t2i_operator.crd` prints the custom resource definition."""

import sys

from t2i_operator.crd.document import render_crd

sys.stdout.write(render_crd())
