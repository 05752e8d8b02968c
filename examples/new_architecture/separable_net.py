from facetask import Preprocessing, hookimpl, module_architecture

PREPROCESSING = Preprocessing(size=(64, 64), colour="rgb", mean=(127.5,) * 3, std=(127.5,) * 3)


@hookimpl
def facetask_architectures():
    """Return the network."""
    return [module_architecture("separable-net", "_separable_net:SeparableNet", PREPROCESSING, licence="CC0-1.0")]
