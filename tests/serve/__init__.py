"""The running application over HTTP; a package, so that what it starts ends with it."""
