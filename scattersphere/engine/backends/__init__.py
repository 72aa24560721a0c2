"""Where attempts run: in threads and in processes. The contract is `scattersphere.abc.backend`."""
