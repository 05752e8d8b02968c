"""Images in folders whose names are their labels: one folder for each class, or several levels of them."""

from __future__ import annotations

from pydantic import Field, field_validator

from facetask import ConfigPath, Dataset, FaceData, Params, hookimpl
from facetask.plugins.datasets.reading import image_tree, text


class ImageFolderParams(Params):
    """Where the folders are, and what their names mean.

    Attributes:
        root: The dataset's folder.
        levels: What the names of the folders are, from the outermost level to the innermost: each becomes a column.
        group_column: The level whose equal names must stay on one side of a split (a person, a clip), if any.
    """

    root: ConfigPath
    levels: list[str] = Field(default=["class"], min_length=1)
    group_column: str | None = None

    @field_validator("levels")
    @classmethod
    def _distinct(cls, levels: list[str]) -> list[str]:
        """Refuse two levels of one name."""
        if len(set(levels)) < len(levels):
            raise ValueError(f"levels must have different names, found {levels}")
        return levels


def load(params: ImageFolderParams) -> FaceData:
    """Return the images with the names of the folders that they are in, as text.

    Raises:
        DataError: If there is no image, one lies outside the innermost folders, or the group column is no level.
    """
    layout = "/".join(f"<{level}>" for level in params.levels)
    images = image_tree(params.root, len(params.levels), f"images in folders {layout}/ (levels: {params.levels})")
    data = FaceData(
        paths=tuple(params.root.joinpath(*parts) for parts in images),
        columns={level: text(parts[i] for parts in images) for i, level in enumerate(params.levels)},
        group_column=params.group_column,
        source=str(params.root),
    )
    if params.group_column is not None:
        data.column(params.group_column)
    return data


@hookimpl
def facetask_datasets() -> list[Dataset]:
    """Return the dataset ``image-folder``."""
    return [Dataset(name="image-folder", load=load, params=ImageFolderParams)]
