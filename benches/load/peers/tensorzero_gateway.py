"""Runs the gateway that TensorZero's Python package embeds, and writes the port it chose to a file.

usage: tensorzero_gateway.py CONFIG PORT_FILE
"""

import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

from tensorzero.tensorzero import _start_http_gateway

config, port_file = sys.argv[1:3]
gateway = _start_http_gateway(
    config_file=config, clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
Path(port_file).write_text(str(urlsplit(gateway.base_url).port), encoding="ascii")
threading.Event().wait()
