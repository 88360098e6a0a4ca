"""The processor: logical processors, EPC, EPCM, access control, tracking, and every SGX leaf."""

from softsgx.cpu.aex import Delivered
from softsgx.cpu.bare import Bare
from softsgx.cpu.fault import Fault, Status
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.part import SGX1_PART, Part
from softsgx.cpu.processor import Processor
from softsgx.cpu.readings import Readings

__all__ = [
    "SGX1_PART",
    "Bare",
    "Delivered",
    "Fault",
    "LogicalProcessor",
    "Part",
    "Processor",
    "Readings",
    "Status",
]
