"""Executes the notebooks, top to bottom, and keeps what they show: `make notebooks`, or those that are named."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def execute(path: Path, timeout: float = 120) -> nbformat.NotebookNode:
    """The notebook with its outputs. Raises CellExecutionError with the cell that failed."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        record_timing=False,  # else every run changes every cell
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(HERE)}},
    )
    asyncio.run(client.async_execute())
    notebook.metadata.get("language_info", {}).pop("version", None)
    return notebook


def main(names: list[str]) -> None:
    for path in sorted(HERE.glob("*.ipynb")):
        if not names or any(name in path.name for name in names):
            began = time.monotonic()
            nbformat.write(execute(path), path)
            print(f"{path.name}: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
