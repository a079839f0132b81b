"""``python -m reward.methods``: the table of methods in Markdown, and that of their baselines."""

from reward.methods.table import baselines_table, methods_table

print(methods_table())
print()
print(baselines_table())
