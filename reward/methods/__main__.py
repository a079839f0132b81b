"""``python -m reward.methods`` prints the table of methods and that of their baselines, in Markdown."""

from reward.methods.table import baselines_table, methods_table

print(methods_table())
print()
print(baselines_table())
