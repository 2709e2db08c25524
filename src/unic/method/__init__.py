"""The method, as pure functions of tensors: standardise, compare, drop. Read step.py first."""
