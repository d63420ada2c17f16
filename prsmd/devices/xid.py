"""Which driver errors (XIDs) and recovery actions mean that nothing new may run on a GPU, in words.

Listed is what NVIDIA's Xid catalog answers with a reset of the GPU, a reboot or work on hardware
(https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html). Everything else is an
application's doing (13, 31, 43, 45, 68, 69), corrected (63, 92, 94) or sums another up (154).
109, a context switch timeout, is left out although the catalog advises a reset: one tenant's
endless kernel can cause it, and NVIDIA's own Kubernetes device plugin ignores it too. 144 to 150
(NVLink 5) depend on a subcode that NVML does not tell; the fatal ones come with a 48.
"""

from collections.abc import Mapping

CRITICAL_XIDS: Mapping[int, str] = {
    46: "the GPU stopped processing",
    48: "an uncorrectable memory error",
    54: "auxiliary power is not connected to the board",
    62: "the GPU's internal microcontroller halted",
    64: "a memory row could not be remapped",
    74: "an NVLink error",
    79: "the GPU has fallen off the bus",
    95: "an uncontained memory error",
    110: "a security fault",
    119: "the GPU's firmware does not answer",
    120: "the GPU's firmware failed",
    136: "NVLink training failed",
    140: "an unrecovered memory error",
    143: "the GPU could not be initialized",
    151: "encryption key rotation failed",
    156: "a part of the GPU was retired and waits for a reset",
    158: "a fatal timeout in the GPU",
    167: "a fatal PCIe timeout",
}

# nvmlDeviceGpuRecoveryAction_t, from driver R565 on; it outlives both the daemon and the event.
RECOVERY_ACTIONS: Mapping[int, str] = {
    1: "a reset of the GPU",
    2: "a reboot of the machine",
    4: "to drain the GPU and reset it",
    6: "a reset of the GPU's PCIe bus",
    7: "a reboot of the machine",
}


def unhealthy_by_xid(xid: int) -> str | None:
    """Return why a GPU that reported this XID may not be used, or None if it may."""
    meaning = CRITICAL_XIDS.get(xid)
    return meaning and f"XID {xid}: {meaning}; the GPU needs a reset or a repair"


def unhealthy_by_recovery(action: int | None) -> str | None:
    """Return what the driver asks for before this GPU is used again, or None."""
    asked = RECOVERY_ACTIONS.get(action or 0)
    return asked and f"the driver asks for {asked}"
