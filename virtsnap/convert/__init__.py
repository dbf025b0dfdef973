"""Options become a domain: tables of rows, one module per subject, and the report."""

from __future__ import annotations

from virtsnap.convert.conversion import Conversion, convert_command_line

__all__ = ["Conversion", "convert_command_line"]
