"""`chain -o dot` and `-o svg`: a guest's disks as a picture."""
