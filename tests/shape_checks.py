"""How the type checker of tests/conftest.py checks arguments: an int may stand where a float is asked for (PEP 484)."""

from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
