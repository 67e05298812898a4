"""The parts of benchmarks/robustness.py and benchmarks/short_finetunes.py."""
