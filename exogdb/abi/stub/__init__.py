"""The entry stub, understood by following its code along every branch. Pure."""

__all__: list[str] = []
