"""What the last bits of a result may depend on besides the experiment: libraries, processors, and which kernels run."""

import hashlib
import os
import platform
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from numpy.lib import introspect

CPU = torch.device("cpu")

# Each makes a library choose other kernels, or another order of summation, than it would by itself.
CPU_VARIABLES = (
    "DNNL_CPU_ISA_HINTS",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "GLIBC_TUNABLES",
    "KMP_DETERMINISTIC_REDUCTION",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_DOMAIN_NUM_THREADS",
    "MKL_DYNAMIC",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "OMP_DYNAMIC",
    "OMP_THREAD_LIMIT",
    "ONEDNN_CPU_ISA_HINTS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
)
GPU_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCH_BLAS_PREFER_CUBLASLT",
    "TORCH_CUDNN_V8_API_DISABLED",
)
INSTRUCTIONS = re.compile(r"(avx|amx|sse\d|ssse|fma|f16c|asimd|sve|bf16|i8mm|fphp)\w*")
UNSET = "(unset)"


def environment(device: torch.device = CPU) -> dict[str, str]:
    """What a run's bits depend on besides its experiment, by name: versions, processor, kernels, settings.

    Each version of metaray records the same names in every run; a name that a checkpoint lacks was unknown to its
    version.
    """
    found = {
        "metaray": metaray_version(),
        "torch": torch.__version__,
        "torch_build": _digest(re.sub("CPU capability usage.*", "", torch.__config__.show())),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "device": device.type,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu": _cpu()[0],
        "cpu_instructions": _cpu()[1],
        "numpy_kernels": _numpy_kernels(),
        "kernels": _kernels(torch.get_num_threads()),
        "mkldnn": _mkldnn(),
        "float32": _float32(),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()).lower(),
    }
    found |= {name: os.environ.get(name, UNSET) for name in CPU_VARIABLES}
    return found if device.type != "cuda" else found | _gpu(device)


@lru_cache
def metaray_version() -> str:
    """Version of metaray, which chooses kernels, too; code that was sent to a cluster has no version."""
    try:
        return version("metaray")
    except PackageNotFoundError:
        return "(not installed)"


def changes(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Differences between two environments, one phrase each; a name that the older one lacks does not count."""
    return [f"{key} {then[key]} -> {now.get(key)}" for key in then if then[key] != now.get(key)]


def _gpu(device: torch.device) -> dict[str, str]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    found = {
        "gpu": torch.cuda.get_device_name(device),
        "cuda": str(torch.version.cuda),
        "cudnn": str(cudnn.version()),
        "cudnn_kernels": f"{cudnn.conv.fp32_precision}, deterministic {cudnn.deterministic}, "  # type: ignore[attr-defined]
        f"benchmark {cudnn.benchmark}",
        "cublas_kernels": f"{matmul.fp32_precision}, {torch.backends.cuda.preferred_blas_library()}",
    }
    return found | {name: os.environ.get(name, UNSET) for name in GPU_VARIABLES}


@lru_cache
def _cpu() -> tuple[str, str]:
    """Model and vector instructions: a virtual machine may hide some of them from the same model."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    known = sorted(flag for flag in set(flags[1].split()) if INSTRUCTIONS.fullmatch(flag)) if flags else []
    return model[1] if model else platform.processor(), " ".join(known)


def _float32() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # torch has no word for it where backends were told to differ
        return "by backend"


def _mkldnn() -> str:
    mkldnn = torch.backends.mkldnn
    said = {"matmul": mkldnn.matmul.fp32_precision, "conv": mkldnn.conv.fp32_precision}  # type: ignore[attr-defined]
    return ", ".join(["on" if torch._C._get_mkldnn_enabled() else "off", *(f"{k} {v}" for k, v in said.items())])


@lru_cache
def _numpy_kernels() -> str:
    """Which of numpy's kernels compute sines, of which sources of functions are made."""
    found = introspect.opt_func_info(func_name="^sin$", signature="float64")
    return ", ".join(kernel["current"] for signatures in found.values() for kernel in signatures.values())


@lru_cache
def _kernels(_threads: int) -> str:
    """A digest of what kernels make of fixed numbers, here and now: oneDNN and MKL do not tell what they chose."""
    x = (torch.arange(8 * 16 * 14 * 14, dtype=torch.float32).reshape(8, 16, 14, 14) * 0.37).sin()
    weight = (torch.arange(16 * 16 * 3 * 3, dtype=torch.float32).reshape(16, 16, 3, 3) * 0.61).cos().requires_grad_()
    with torch.enable_grad():
        hidden = torch.conv2d(x, weight, padding=1).relu().flatten(1)
        outputs = (hidden @ hidden.T).log_softmax(-1)
        (gradient,) = torch.autograd.grad(outputs.sum(), weight)
    values = (x, hidden.detach(), outputs.detach(), gradient)
    return _digest(b"".join(value.numpy().tobytes() for value in values))


def _digest(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:12]
