"""The configuration of a run: a YAML file and overrides become one validated, frozen :class:`RunConfig`.

Its sections are in ``inputs`` (base network, data, tasks, split, slices), ``method`` (curve, prune, finetune) and
``run_config`` (the whole, and what sections must agree on); ``loading`` reads and validates, ``complaints`` says what
is wrong.
"""

from facetask.config.inputs import (
    AlignConfig,
    BaseNetworkConfig,
    DataConfig,
    SatelliteTask,
    Slice,
    SliceConfig,
    SplitConfig,
    can_name_a_folder,
)
from facetask.config.loading import (
    PluginLookup,
    as_config,
    config_differences,
    config_from_dict,
    load_config,
    resolved_yaml,
    validated,
)
from facetask.config.method import CurveConfig, CutWithin, FinetuneConfig, KneeSize, PruneConfig
from facetask.config.run_config import ComputeConfig, RunConfig
from facetask.config.section import ConfigPath, PluginChoice

__all__ = [
    "AlignConfig",
    "BaseNetworkConfig",
    "ComputeConfig",
    "ConfigPath",
    "CurveConfig",
    "CutWithin",
    "DataConfig",
    "FinetuneConfig",
    "KneeSize",
    "PluginChoice",
    "PluginLookup",
    "PruneConfig",
    "RunConfig",
    "SatelliteTask",
    "Slice",
    "SliceConfig",
    "SplitConfig",
    "as_config",
    "can_name_a_folder",
    "config_differences",
    "config_from_dict",
    "load_config",
    "resolved_yaml",
    "validated",
]
