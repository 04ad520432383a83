# Completion of qmpsnap for bash; installed into share/bash-completion/completions/qmpsnap.
eval "$(qmpsnap completion bash)"
