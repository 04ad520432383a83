# Completion of qmpsnap for fish; installed into share/fish/vendor_completions.d.
qmpsnap completion fish | source
