"""What a process that reads images does first; for the worker_init_fn of a DataLoader."""

import multiprocessing
import os
import threading


def leave_signals_to_main(number: int) -> None:
    """Ctrl-C and `timeout` signal a whole process group; the main one decides, and needs data until it stops."""
    # Not by ignoring SIGTERM: multiprocessing ends its processes with it, and would wait for ever.
    os.setpgrp()
    end_with_main(number)


def end_with_main(_: int) -> None:
    """Ends this process when the one that reads from it is gone, killed or not.

    Torch looks whether the process that forked this one lives on, and a fork server does.
    """
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    main = multiprocessing.parent_process()
    if main is not None:
        main.join()
        os._exit(1)
