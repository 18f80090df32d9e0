"""The four services. Each posts a request to the worker and waits for it, up to a deadline.

They share a callback group that never runs twice at once: a burst of calls is answered one by one, in an
executor's thread that nothing else needs, while pictures and diagnostics go on.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, TypeVar

from nocsfm_msgs.srv import RemoveReference, SetReference
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool, Trigger

from nocsfm_ros.errors import NocsfmError
from nocsfm_ros.ros.conversions import reference_from_request
from nocsfm_ros.ros.parameters import RosConfig
from nocsfm_ros.ros.worker import TrackerLike, Worker
from nocsfm_ros.tracking.saved_references import forget_reference, save_reference
from nocsfm_ros.types import Reference, RgbdFrame

T = TypeVar("T")
# Deeper than any burst of calls: the middleware forgets requests that do not fit.
_QOS = QoSProfile(depth=1000)


class Services:
    """Offers ~/set_reference, ~/remove_reference, ~/reset and ~/enable as long as the node lives."""

    def __init__(
        self,
        node: Node,
        worker: Worker,
        config: Callable[[], RosConfig],
        newest: Callable[[], RgbdFrame | None],
    ) -> None:
        """Offer them at once.

        Args:
            node: the services' node.
            worker: gets the requests.
            config: the settings as they are at the time of a call.
            newest: what the camera shows at the time of a call.
        """
        self._worker, self._config, self._newest, self._logger = worker, config, newest, node.get_logger()
        group = MutuallyExclusiveCallbackGroup()
        for kind, name, callback in (
            (SetReference, "set_reference", self._on_set_reference),
            (RemoveReference, "remove_reference", self._on_remove_reference),
            (Trigger, "reset", self._on_reset),
            (SetBool, "enable", self._on_enable),
        ):
            node.create_service(kind, f"~/{name}", callback, qos_profile=_QOS, callback_group=group)

    def _on_set_reference(
        self, request: SetReference.Request, response: SetReference.Response
    ) -> SetReference.Response:
        newest = self._newest()
        answer = self._asked(response, lambda tracker: self._set(tracker, reference_from_request(request, newest)))
        if answer is not None:
            report, remark = answer
            response.message = (
                f"looking for {report.object_id}: {report.foreground_pixels} foreground pixels, "
                + (
                    " x ".join(f"{1000 * side:.0f}" for side in report.size_m) + " mm"
                    if report.scale_m
                    else "no depth"
                )
                + remark
            )
            response.object_id = report.object_id
            response.object_frame_id = self._config().object_frame_prefix + report.object_id
            response.foreground_pixels = int(report.foreground_pixels)
            response.size.x, response.size.y, response.size.z = (float(side) for side in report.size_m)
            response.scale = float(report.scale_m)
            self._logger.info(response.message)
        return response

    def _on_remove_reference(
        self, request: RemoveReference.Request, response: RemoveReference.Response
    ) -> RemoveReference.Response:
        answer = self._asked(response, lambda tracker: self._remove(tracker, request.object_id or None))
        removed = answer[0] if answer is not None else []
        if answer is not None:
            response.removed = removed
            response.message = f"forgot {', '.join(removed) or 'nothing: there was no reference'}{answer[1]}"
        if response.success and request.object_id and not removed:
            response.success, response.message = False, f"there is no object {request.object_id!r}"
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._asked(response, lambda tracker: tracker.reset())
        response.message = response.message or "searching; references kept"
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._worker.pause(not request.data)
        response.success, response.message = True, "running" if request.data else "paused"
        return response

    def _set(self, tracker: TrackerLike, reference: Reference) -> tuple[Any, str]:
        """The tracker's report, and what is to be said about saving; in the worker's thread, as _remove."""
        report = tracker.set_reference(reference)
        self._worker.note_objects(tracker.object_ids)
        return report, self._kept(lambda folder: f"saved in {save_reference(folder, reference)}", "not saved")

    def _remove(self, tracker: TrackerLike, object_id: str | None) -> tuple[list[str], str]:
        removed = list(tracker.remove_reference(object_id))
        self._worker.note_objects(tracker.object_ids)

        def forget(folder: Path) -> str:
            for name in removed:
                forget_reference(folder, name)
            return ""

        return removed, self._kept(forget, "still saved")

    def _kept(self, change: Callable[[Path], str], failure: str) -> str:
        """Change the folder of saved references, where there is one to be changed, and say so."""
        config = self._config()
        folder = config.references_folder
        if folder is None or not config.save_references:
            return ""
        try:
            remark = change(folder)
        except OSError as error:
            remark = f"{failure}: {error}"
            self._logger.error(remark)
        return f"; {remark}" if remark else ""

    def _asked(self, response: Any, job: Callable[[TrackerLike], T]) -> T | None:
        """Have the worker do a job; on failure the response says why, and None is returned. Never raises."""
        future = self._worker.post(job)
        try:
            answer = self._waited_for(future)
        except (FutureTimeoutError, TimeoutError):
            later = "it was taken back" if future.cancel() else "it goes on and may still take effect"
            limit = f"within {self._config().service_timeout_s:g} s (parameter service_timeout_s)"
            response.success, response.message = False, f"not done {limit}; {later}"
        except CancelledError:
            response.success, response.message = False, "the node is shutting down"
        except Exception as error:
            response.success, response.message = False, said(error)
            log = self._logger.warning if isinstance(error, NocsfmError) else self._logger.error
            log(f"request failed: {said(error)}{trace(error)}")
        else:
            response.success = True
            return answer
        return None


    def _waited_for(self, future: Future[T]) -> T:
        """The result; loading the weights does not count against the time that a request has."""
        while True:
            was_loading = self._worker.stats.loading  # at the start: what follows the load has its full time
            try:
                return future.result(timeout=self._config().service_timeout_s)
            except (FutureTimeoutError, TimeoutError):
                if not was_loading:
                    raise


def said(error: BaseException) -> str:
    """One sentence for people."""
    return str(error) if isinstance(error, NocsfmError) else f"{type(error).__name__}: {error}"


def trace(error: BaseException) -> str:
    """The traceback of what nobody expected; an error of our own says all in its message."""
    return "" if isinstance(error, NocsfmError) else "\n" + "".join(traceback.format_exception(error))
