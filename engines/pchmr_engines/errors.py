"""The errors of pchmr: what came, what was expected, how to mend it."""


class PchmrError(Exception):
    """Base of every error a user can cause and mend; the command line prints it as one line."""


class MissingDependency(PchmrError):
    """An optional package is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f"run  pip install 'pchmr[{extra}]'"
        )


class BundleError(PchmrError):
    """A bundle is not what its manifest says, or not what this version reads."""


class EngineError(PchmrError):
    """An engine cannot be made or run as asked on this machine; nothing else is run instead."""


class AssetError(PchmrError):
    """A pinned file could not be fetched or is not the file that was pinned."""


class InputError(PchmrError):
    """A photo, video, stream, body file or argument from the user cannot be used."""
