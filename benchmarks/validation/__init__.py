"""How far off are the joules, and do the error bars hold?

Sensors of many kinds, emulated with exactly known energy, times kinds of load, in fake time and seeded::

    python -m benchmarks.validation                    # everything, to the terminal
    python -m benchmarks.validation --write            # and into docs/explanation/validation.md
    python -m benchmarks.validation --only h100 serving --worst 5

A load is data (powers and calls against time), a profile is a machine, and the two know nothing of each other;
aimeter sees what the emulated sensors publish and when calls begin and end, nothing else.
"""
