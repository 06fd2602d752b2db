"""GPU work is asynchronous: wait for it before a call's end is stamped.

Kernels are only queued when a framework's function returns. A call that ended there would leave its energy to
whoever comes next. Only a framework that is already loaded is asked, and only devices it already uses.
"""

from __future__ import annotations

import sys


def may_be_queued() -> bool:
    """Return whether there may be something to wait for: False if torch, as it says itself, has not initialised CUDA."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    # is_initialized() takes this flag and asks for more, which costs as much as all the rest of a call's end.
    return bool(getattr(cuda, "_initialized", True))


def wait_for_devices() -> str | None:
    """Wait for the queued work of torch's CUDA devices, if torch is loaded and has initialised CUDA.

    Never imports torch, never initialises CUDA and never creates a context on a device that has none.

    Returns:
        None if there was nothing to wait for or all is done, else why it could not be waited for.
    """
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    try:
        if cuda is None or not cuda.is_initialized():
            return None
        if cuda.is_current_stream_capturing():
            # Synchronising would invalidate the CUDA graph that is being captured.
            return "not synchronised: a CUDA graph is being captured"
        for device in range(cuda.device_count()):
            if _has_context(device):
                _synchronise(device)
    except Exception as error:  # noqa: BLE001 - any CUDA error is the caller's to meet in the caller's own code
        return f"not synchronised: {type(error).__name__}"
    return None


def _has_context(device: int) -> bool:
    """Return whether torch already holds a context on the device; synchronising another would create one."""
    torch = sys.modules.get("torch")
    ask = getattr(getattr(torch, "_C", None), "_cuda_hasPrimaryContext", None)
    if ask is None:
        return device == torch.cuda.current_device() if torch is not None else False
    return bool(ask(device))


def _synchronise(device: int) -> None:
    """Wait for one device. torch.cuda.synchronize() changes to it and back, which takes longer than not waiting at all."""
    torch = sys.modules["torch"]
    lean = getattr(torch, "_C", None)
    current, wait = (getattr(lean, name, None) for name in ("_cuda_getDevice", "_cuda_synchronize"))
    if current is not None and wait is not None and current() == device:
        wait()
    else:
        torch.cuda.synchronize(device)
