"""Console scripts of the ROS commands: Ctrl-C is quiet also while their modules are being imported."""

from __future__ import annotations

import signal
from importlib import import_module

INTERRUPTED = 130


def tracker_node() -> int:
    """`ros2 run nocsfm_ros tracker_node`."""
    return _run("nocsfm_ros.ros.node")


def set_reference() -> int:
    """`ros2 run nocsfm_ros set_reference`."""
    return _run("nocsfm_ros.ros.set_reference")


def player() -> int:
    """`ros2 run nocsfm_ros player`."""
    return _run("nocsfm_ros.ros.player")


def _run(module: str) -> int:
    """The exit code of a module's main().

    An import that a KeyboardInterrupt breaks off prints a traceback of somebody else's code; the default action of the
    signal just ends the process, and nothing is open yet.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else a parent wants it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    main = import_module(module).main
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return int(main())
    except KeyboardInterrupt:
        return INTERRUPTED
