"""The Vega preset behind the heat maps: W&B draws it over the table that a run logs at its end."""

from __future__ import annotations

from typing import Any

from ...foundation.run_names import HEAT_MAP_CHART

SPEC: dict[str, Any] = {
    "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
    "title": "${string:title}",
    "data": {"name": "wandb"},
    "facet": {"column": {"field": "${field:estimator}", "type": "nominal", "title": None}},
    "resolve": {"scale": {"color": "independent"}},
    "spec": {
        "width": 240,
        "height": 280,
        "mark": {"type": "rect", "tooltip": True},
        "encoding": {
            "x": {"field": "${field:step}", "type": "ordinal", "title": "step", "axis": {"labelOverlap": True}},
            "y": {"field": "${field:layer}", "type": "ordinal", "title": "layer", "sort": "descending"},
            "color": {
                "field": "${field:share}",
                "type": "quantitative",
                "title": "%",
                "scale": {"scheme": "cividis", "zero": True},
            },
        },
    },
}


def save_preset(entity: str) -> str | None:
    """Stores the preset for an entity.

    Returns:
        W&B's objection (for example, if the preset exists already), or None.
    """
    import wandb

    try:
        wandb.Api().create_custom_chart(
            entity=entity,
            name=HEAT_MAP_CHART,
            display_name="TextKeep: importance of layers",
            spec_type="vega2",
            access="private",
            spec=SPEC,
        )
    except wandb.Error as error:
        return " ".join(str(error).split())
    return None
