"""OpenVINO, imported so that it reports nothing to anybody; everything here that needs it takes it from this module."""

import sys

# Its converters report their use unless somebody opted out; without the package they cannot (HAZARDS, OpenVINO 3).
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # Python's own way to forbid an import
import openvino as ov  # noqa: E402
from openvino import opset15 as op  # noqa: E402

__all__ = ["op", "ov"]
