"""``python -m reward.methods``: the table of methods in Markdown."""

from reward.methods.table import methods_table

print(methods_table())
