"""Adapters to other libraries; each is loaded only when it is used."""
