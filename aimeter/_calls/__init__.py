"""Calls as the caller sees them: `with`, decorators, figures, and what they need of their meter."""
