"""The node nocsfm_tracker: decides when things happen.

Threads: the executor's run the callbacks; the worker's alone touches the tracker and publishes. Inputs,
services, housekeeping and transitions are callback groups of their own, so that what waits for the worker
stops neither the pictures nor the diagnostics. Autostart is one too: while the weights load, state and
parameters can be asked for.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from tf2_ros import TransformBroadcaster

from nocsfm_ros.config import Config
from nocsfm_ros.errors import ConfigError, NocsfmError
from nocsfm_ros.ros.diagnostics import SILENT_S, Rates, diagnostic_array
from nocsfm_ros.ros.inputs import Inputs
from nocsfm_ros.ros.parameters import checked_change, declare_parameters
from nocsfm_ros.ros.publishing import Publishing
from nocsfm_ros.ros.services import Services, said, trace
from nocsfm_ros.ros.worker import Result, TrackerLike, Worker
from nocsfm_ros.tracking.saved_references import read_reference, saved_references
from nocsfm_ros.types import RgbdFrame

# Ctrl-C waits this long for the frame in work.
_STOP_S = 1.0


SWITCH_INTERVAL_S = 0.0001
SPIN_PAUSE_S = 0.004


class TrackerNode(LifecycleNode):
    """6D pose of objects known from one picture each, from registered RGB-D messages."""

    def __init__(self, build: Callable[[Config], TrackerLike] | None = None, **node_arguments: Any) -> None:
        """Make the node; with autostart the worker begins to load the weights.

        Args:
            build: makes the tracker from the settings; the default loads the weights.
            node_arguments: of rclpy.node.Node: context, namespace, parameter_overrides, cli_args ...

        Raises:
            ConfigError: names every parameter of wrong type or range.
        """
        super().__init__(
            "nocsfm_tracker", automatically_declare_parameters_from_overrides=True, **node_arguments
        )
        self._worker = Worker(partial(self._built, build or _build_tracker), self._on_result, self._on_failure)
        try:
            self._config = declare_parameters(self)
        except ConfigError:
            self.destroy_node()
            raise
        self._problem = ""
        # Before any service is offered: a request that comes at once then waits for the weights.
        self._loading = self._worker.load(self._config) if self._config.autostart else None
        self._newest: tuple[RgbdFrame, float] | None = None  # with the time.monotonic() of its arrival
        self._inputs: Inputs | None = None
        self._publishing: Publishing | None = None
        self._rates = Rates()
        self._broadcaster = TransformBroadcaster(self)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        Services(self, self._worker, lambda: self._config, self._newest_frame)
        self.create_timer(1.0, self._on_second, callback_group=MutuallyExclusiveCallbackGroup())
        self._autostart_timer = None
        if self._config.autostart:
            group = MutuallyExclusiveCallbackGroup()
            self._autostart_timer = self.create_timer(0.0, self._on_autostart, callback_group=group)

    def stop(self) -> bool:
        """End the worker; services and transitions that wait for it return at once.

        Returns:
            False when the worker is inside a call that cannot be interrupted; the end of the process ends it.
        """
        return self._worker.stop(_STOP_S)

    def destroy_node(self) -> None:
        """Join the worker first: it publishes."""
        self.stop()
        super().destroy_node()
        # rclpy leaves it, and with it the participant stays in the graph and in shared memory.
        self.__dict__.pop("_state_machine", None)

    # -- lifecycle: rclpy swallows what a transition raises, so each says itself what went wrong

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights and make the publishers."""
        self._problem = "loading the weights"
        self.get_logger().info(self._problem)
        try:
            loading, self._loading = self._loading or self._worker.load(self._config), None
            loading.result()
            self._publishing = Publishing(self, self._broadcaster)
        except CancelledError:
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            return self._refused("not configured", error)
        self._problem = ""
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe."""
        try:
            self._rates = Rates()  # the inputs count from 0
            self._inputs = Inputs(self, self._config, self._on_frame)
        except Exception as error:
            return self._refused("not active", error)
        self._problem = ""
        self.get_logger().info("active; waiting for " + ", ".join(self._inputs.names))
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; references and states are kept."""
        if self._inputs is not None:
            self._inputs.destroy()
            self._inputs = None
        self._worker.clear()
        self._newest = None
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free weights, references and publishers."""
        try:
            self._worker.unload().result()
        except CancelledError:
            return TransitionCallbackReturn.FAILURE
        if self._publishing is not None:
            self._publishing.destroy()
            self._publishing = None
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Both, from any state."""
        self.on_deactivate(state)
        return self.on_cleanup(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, from where the node can be configured again."""
        self._problem = "a lifecycle transition failed: the log says why"
        return self.on_shutdown(state)

    def _refused(self, what: str, error: Exception) -> TransitionCallbackReturn:
        self._problem = f"{what}: {said(error)}"
        self.get_logger().error(f"{self._problem}{trace(error)}")
        return TransitionCallbackReturn.FAILURE

    def _on_autostart(self) -> None:
        if self._autostart_timer is not None:
            self._autostart_timer.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _built(self, build: Callable[[Config], TrackerLike], config: Config) -> TrackerLike:
        """A tracker that has the saved references; one that cannot be used is logged and left out."""
        tracker = build(config)
        folder = self._config.references_folder
        if folder is None:
            return tracker
        if not folder.is_dir() and not self._config.save_references:
            raise ConfigError("parameter references", got=f"no folder {folder}", expected="a folder of references",
                              mend="make it, or set save_references")
        for path in saved_references(folder) if folder.is_dir() else ():
            try:
                tracker.set_reference(read_reference(path))
                self.get_logger().info(f"looking for {path.name}, a saved reference")
            except NocsfmError as error:
                self.get_logger().error(f"left out: {error}")
        return tracker

    # -- frames

    def _on_frame(self, frame: RgbdFrame) -> None:
        self._newest = frame, time.monotonic()
        self._worker.put(frame)

    def _newest_frame(self) -> RgbdFrame | None:
        """What the camera shows now; None where it is silent."""
        newest = self._newest  # once: deactivation in another thread empties it
        if newest is None or time.monotonic() - newest[1] > SILENT_S:
            return None
        return newest[0]

    def _on_result(self, result: Result) -> None:
        publishing = self._publishing
        if publishing is not None:
            publishing.publish(result, self._config)

    def _on_failure(self, error: Exception) -> None:
        if self.context.ok():  # after Ctrl-C no publisher works, which is no failure
            self.get_logger().error(f"frame failed: {said(error)}{trace(error)}", throttle_duration_sec=5.0)

    # -- housekeeping

    def _on_set_parameters(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        changed, result = checked_change(self._config, parameters)
        if changed != self._config:
            self._config = changed
            # Also while the weights load, which began with the old values; without a tracker it does nothing.
            self._worker.post(lambda tracker: tracker.configure(changed))
        return result

    def _on_second(self) -> None:
        try:
            state = self._state_machine.current_state[1]
            inputs = self._inputs
            monitor = inputs.monitor if inputs is not None else None
            self._diagnostics.publish(
                diagnostic_array(self, state, self._problem, monitor, self._worker.stats, self._rates)
            )
        except Exception as error:  # the graph may change while it is read, above all at shutdown
            self.get_logger().debug(f"no diagnostics: {error!r}")


def _build_tracker(config: Config) -> TrackerLike:
    from nocsfm_ros.tracking.tracker import (
        build_tracker,
    )  # torch: seconds to import, so in the worker's thread

    tracker: TrackerLike = build_tracker(config)
    return tracker


def _spin(node: TrackerNode, executor: MultiThreadedExecutor) -> None:
    while rclpy.ok():
        try:
            executor.spin_once()
            # rclpy's executor offers a callback again and again until its thread has begun, and rebuilds its whole
            # wait set each time: without a pause it takes the interpreter from the worker for most of a core.
            time.sleep(SPIN_PAUSE_S)
        except (KeyboardInterrupt, ExternalShutdownException):
            return
        except InvalidHandle:
            pass  # rclpy's executor met a subscription just as a transition destroyed it
        except Exception as error:  # one broken callback must not end the node
            if not rclpy.ok():  # a signal ended the context between the check and the wait
                return
            node.get_logger().error(f"callback failed:{trace(error)}", throttle_duration_sec=5.0)


def _end(node: TrackerNode | None, executor: MultiThreadedExecutor | None) -> None:
    """Worker, executor, node, context: in the order in which each needs the next."""
    stopped = node.stop() if node is not None else True
    if executor is not None:
        executor.shutdown(timeout_sec=0.5)
    if node is not None and stopped:
        node.destroy_node()
    rclpy.try_shutdown()
    # Either the worker is inside an import, a download or a long computation, which no thread can interrupt, or
    # torch would now be taken apart module by module, for longer than ros2 launch waits before it kills.
    if not stopped or "torch" in sys.modules:
        if stopped:
            rclpy.get_default_context().destroy()  # takes the leave of the other participants
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def main(args: list[str] | None = None, build: Callable[[Config], TrackerLike] | None = None) -> int:
    """Run the node until Ctrl-C; 2 on a parameter that cannot be used."""
    node: TrackerNode | None = None
    executor = None
    # The worker gives up the interpreter in each of the hundreds of torch calls of a frame, and waits this long for
    # the executor's thread to hand it back. Python's 5 ms made frames ten times slower.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        rclpy.init(args=args)
        node = TrackerNode(build)
        executor = MultiThreadedExecutor(num_threads=4)
        executor.add_node(node)
        _spin(node, executor)
    except KeyboardInterrupt:
        pass
    except ConfigError as error:
        sys.stderr.write(f"nocsfm_tracker: {error}\n")
        return 2
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not break the clean end
        _end(node, executor)
    return 0


if __name__ == "__main__":
    sys.exit(main())
