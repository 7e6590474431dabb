from __future__ import annotations

import gc


def start() -> None:
    # What is imported stays: to look for garbage in it would take a tenth of the time to start.
    gc.disable()
    from brain.cli.main import main

    gc.enable()
    main()


start()
