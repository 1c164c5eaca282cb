"""`t2ictl`: see `t2ictl --help`.

Importing its commands takes a second. Ctrl-C must end it as quietly then as later.
"""

import sys


def main() -> None:
    try:
        from t2i_runtime.logs import keep_prompts_out

        keep_prompts_out()
        from t2ictl.app import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
