"""One network of the zoo: how to build it, and what is expected of it when every group loses half of its units."""

from dataclasses import dataclass

from toys import Network

OUTPUT = "network output"
UNREACHED = "not reached by the forward pass in either mode"
STREAM = "layer_norm mixes all channels"  # the width of a transformer's residual stream
PROOF = "proof failed"
AT_ONCE = "these channels can only leave all at once"


@dataclass(frozen=True)
class Shipped:
    """A network as its library ships it.

    Attributes:
        network: how to build it, and its inputs.
        macs_kept: the share of its multiply-adds that is left at most, as measured; a quarter is ideal.
        pins: how the reasons start for which channels may be pinned.
        slow: too heavy for every run.
        needs: the package that ships it, or one that it needs besides.
        prototype: the share that the project's first label engine left of a network of the same kind and like widths;
            None where nobody measured it. Ours is at most two points above.
        transformer: ours is below ``prototype`` instead, which left heads and hidden widths alone.
        unread: how the names of modules start whose results the network computes and leaves unused. What they read
            can be removed, and no proof can feel it.
        not_exported: how torch's ONNX exporter explains that it cannot take the dense network; "" where it can.
    """

    network: Network
    macs_kept: float
    pins: tuple[str, ...] = (OUTPUT,)
    slow: bool = False
    needs: str = "monai"
    prototype: float | None = None
    transformer: bool = False
    unread: tuple[str, ...] = ()
    not_exported: str = ""
