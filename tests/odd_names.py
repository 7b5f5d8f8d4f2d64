"""Names that a file system takes and that programs stumble over: as patterns, separators, addresses, options."""

ODD_NAMES = (
    "-dash",
    "run [1]",
    "lr[0.05]",
    "a space",
    "50%41 %s",
    "a#b",
    "'single' \"double\"",
    "back\\slash",
    "Müller",
    "日本語",
    "all*? {of} $HOME; it & more | ~",
    "gs:",  # an address, with the separator behind it
    "two\nlines",
    "\udcff",  # a byte that is no text
)
