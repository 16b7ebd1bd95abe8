"""Imports OpenVINO without its telemetry. All code here imports it from this module."""

import sys

# Its converters report their use unless the user opted out; without this package they cannot (HAZARDS, OpenVINO 3).
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # Python's own way to forbid an import
import openvino as ov  # noqa: E402
from openvino import opset15 as op  # noqa: E402

__all__ = ["op", "ov"]
