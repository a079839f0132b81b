"""The type checker pytest puts on every function of the packages: beartype, with ints accepted for floats (PEP 484)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
