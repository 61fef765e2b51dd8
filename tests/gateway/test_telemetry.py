"""OpenTelemetry against a real OTLP receiver: the conventions' names, the decision's own, no text, and a collector that is not there."""

import asyncio
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fairlead.config import TelemetryConfig
from fairlead.errors import ConfigError
from fairlead.gateway import telemetry
from fairlead.gateway.telemetry import CALL, INSTRUMENTS, SPAN
from tests_support import gateways

pytest.importorskip("opentelemetry.sdk")
from tests_support.collector import Collector, attributes  # noqa: E402
