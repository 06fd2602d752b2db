"""What one real GPU shows: how it publishes energy and power, and whether aimeter's joules hold on it.

`python -m benchmarks.hardware` needs an NVIDIA GPU, its driver and torch with CUDA, and no network; it takes about
eight minutes on a device that does nothing else. The same programme runs on the emulated GPU in the tests.
"""
