"""Compile tests/it/sim/nvcc/kernels.cu to PTX with NVIDIA's compiler, or (--check) compare with the committed text.

The compiler comes from PyPI and is NVIDIA's own; what it makes of our text is committed, the compiler never is:

    python3 -m pip install --no-deps --target DIR nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 \
        nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.88 nvidia-cuda-cccl==13.0.85
    python3 tests/reference/nvcc.py DIR [--check]
"""
import os
import re
import subprocess
import sys
import tempfile

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "it", "sim", "nvcc")


def main():
    nvcc = os.path.join(sys.argv[1], "nvidia", "cu13", "bin", "nvcc")
    with tempfile.TemporaryDirectory() as folder:
        made = os.path.join(folder, "kernels.ptx")
        source = os.path.join(FOLDER, "kernels.cu")
        subprocess.run([nvcc, "-ptx", "-arch=sm_80", "-O3", source, "-o", made], check=True)
        with open(made) as file:
            # The names of inlined functions' variables hold a number of the source's path.
            text = re.sub(r"_[0-9a-f]{8}_\d+_kernels_cu_[0-9a-f]{8}", "", file.read())
    committed = os.path.join(FOLDER, "kernels.ptx")
    if "--check" in sys.argv:
        with open(committed) as file:
            assert file.read() == text, "the committed text differs"
        return print("as committed")
    with open(committed, "w") as file:
        file.write(text)


main()
