"""The ablation table, the report page and its figures."""
