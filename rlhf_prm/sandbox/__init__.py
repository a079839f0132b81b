"""A Python interpreter as a tool: programs that a model wrote run in an isolated process.

from rlhf_prm.sandbox import PythonTool
tool = PythonTool(seconds=5)
tool.python("print(2 ** 10)")     # "1024\\n"
"""

from rlhf_prm.sandbox.protections import PROTECTIONS, granted_protections
from rlhf_prm.sandbox.python_tool import Execution, PythonTool

__all__ = ["PROTECTIONS", "Execution", "PythonTool", "granted_protections"]
