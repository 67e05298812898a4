"""The synthetic checks that benchmarks/metric_sanity.py and tests/test_metric_sanity.py share."""
