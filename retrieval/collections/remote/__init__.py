"""Collections in a zip or in remote storage, to be indexed without a copy on this machine.

It reads zips, local or remote, and folders at any address that fsspec knows:
``s3://bucket/folder``, ``gs://…``, ``sftp://…``, ``https://…``. Credentials come from the
environment or from the address. User, password and query of an address are never shown or stored.
"""

from retrieval.collections.remote.collection import Remote, open_anywhere

__all__ = ["Remote", "open_anywhere"]
