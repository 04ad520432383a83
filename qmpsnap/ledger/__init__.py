"""The volume side: the format of every file, and the state of every snapshot."""
