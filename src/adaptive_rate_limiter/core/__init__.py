"""The pure room: every decision, with time as an argument. No clock, no I/O, no threads, no asyncio."""
