"""One guest and one workload, taken through every way to save and load: samples, ratios, a report."""
