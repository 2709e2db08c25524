"""Reports, pictures, the doctor, benchmarks, estimates: what looks at runs and encoders. Only cli/ imports it."""
