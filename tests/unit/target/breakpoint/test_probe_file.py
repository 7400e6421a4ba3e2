"""The probe file is what other readers of ELF say it is."""

import shutil
import subprocess
from pathlib import Path

import pytest

from exogdb.target.breakpoint.probe_file import Probe, make_probe_file

PROBES = [
    Probe("syscall", "ipc_send", 0xFFFF_FFFF_8010_CEA0),
    Probe("syscall", "%ipc?on-return", 0xFFFF_FFFF_8010_CA60),
    Probe("syscall", "%ipc?on-return", 0x40_1000),
]


def read_notes(path: Path) -> str:
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    command = ["readelf", "-nSW", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def test_readelf_lists_every_probe(tmp_path: Path) -> None:
    path = tmp_path / "probes"
    path.write_bytes(make_probe_file(PROBES))
    text = read_notes(path)
    for probe in PROBES:
        assert f"Provider: {probe.provider}" in text
        assert f"Name: {probe.name}" in text
        assert f"Location: {probe.address:#018x}, Base: 0x0000000000000000" in text
    assert text.count("NT_STAPSDT") == 3
    assert ".stapsdt.base" in text
