"""Events as text, JSON lines, Perfetto traces and counts; and why something was refused."""
