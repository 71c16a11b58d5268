"""The numbers of every README, made from tests/records (`make readme`)."""
