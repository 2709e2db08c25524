"""What is measured while a run goes on: metrics, how much of each teacher the student has, alarms."""
