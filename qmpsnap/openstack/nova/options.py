"""The section `[qmpsnap]` of nova.conf; docs/reference/nova-options.md is written from it."""

from __future__ import annotations

from typing import Any, Final

from oslo_config import cfg

from qmpsnap.operations.options import MergeOptions, OnError

GROUP: Final = "qmpsnap"
PRIVILEGED: Final = "qmpsnap_privileged"
"""The section of the helper; its options are oslo.privsep's."""
OPTIONS: Final = (
    cfg.BoolOpt(
        "allow_passthrough",
        default=True,
        help="Ask QEMU itself how its files are opened, through libvirt's monitor passthrough. "
        "libvirt marks such a guest as tainted. Without, formats come from libvirt's XML and the "
        "headers of the files, and the rule of the specification where these are silent.",
    ),
    cfg.StrOpt(
        "state_folder",
        default="$state_path/qmpsnap-state",
        help="Folder of the journal, on a local disk: what is going to be done, and what Cinder is "
        "to be told, is written there before it is done. For this service alone.",
    ),
    cfg.IntOpt(
        "bandwidth",
        default=0,
        min=0,
        help="Bytes a second that the merge of a snapshot's deletion may copy; 0 for no limit.",
    ),
    cfg.FloatOpt(
        "merge_timeout",
        default=0.0,
        min=0.0,
        help="Seconds until a merge is cancelled, with the chain as it was; 0 for no limit. Cinder "
        "itself waits for 7200 s.",
    ),
    cfg.FloatOpt(
        "freeze_timeout",
        default=10.0,
        min=0.1,
        help="Seconds that the guest may take to freeze its filesystems, where the image asks for it "
        "(hw_qemu_guest_agent), and that it may then stay frozen.",
    ),
    cfg.FloatOpt(
        "refresh_timeout",
        default=60.0,
        min=0.0,
        help="Seconds that a call waits until Cinder has concluded a snapshot that was reported, to "
        "refresh the volume's connection_info. Where that takes longer it is done later, and until "
        "then a start takes the file that the journal says is active.",
    ),
    cfg.StrOpt(
        "on_error",
        default="fail",
        choices=["fail", "pause"],
        help="What a merge does when it cannot read or write (no space). libvirt cannot let its jobs "
        "pause, and refuses `pause` for a guest that runs.",
    ),
)


def register(conf: Any) -> Any:
    """Register the options with Nova's configuration, and return their section."""
    conf.register_opts(OPTIONS, group=GROUP)
    return conf.qmpsnap


def merge_options(section: Any) -> MergeOptions:
    """What is wished of every merge."""
    return MergeOptions(
        bandwidth=section.bandwidth or None,
        timeout_s=section.merge_timeout or None,
        on_error=OnError(section.on_error),
    )


def listed() -> list[tuple[str, tuple[Any, ...]]]:
    """The options for oslo-config-generator (entry point `oslo.config.opts`)."""
    from oslo_privsep import priv_context

    return [(GROUP, OPTIONS), (PRIVILEGED, tuple(priv_context.OPTS))]
